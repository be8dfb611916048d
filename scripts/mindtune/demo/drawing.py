"""Drawing a street scene with Pillow: deterministic, and pleasant enough to look at.

All coordinates are in units of a street 140 wide and 112 high, whatever the size
of the picture, since the demo's model sees pictures of 140 x 112 pixels. What a
question asks for must survive at that size: a sign is larger than a vision token
(28 x 28), and a person is several patches (14 x 14) high.
"""

import random

from PIL import Image, ImageDraw

from mindtune.demo.scenes import Scene

WIDTH, HEIGHT = 140, 112
SIZE = (400, 320)
SUPERSAMPLING = 2

BODY = {
    "red": (205, 42, 44),
    "blue": (42, 84, 190),
    "green": (38, 142, 70),
    "yellow": (243, 196, 36),
    "white": (240, 240, 236),
    "black": (36, 37, 44),
}
SIGN = {
    "red": (214, 34, 46),
    "blue": (32, 86, 214),
    "green": (22, 156, 72),
    "orange": (246, 138, 22),
    "white": (252, 252, 250),
}
SKIES = (  # zenith, horizon, light on the houses
    ((92, 158, 222), (214, 233, 246), 1.0),
    ((120, 172, 214), (238, 236, 222), 1.0),
    ((142, 162, 188), (222, 224, 224), 0.94),
    ((122, 132, 190), (250, 208, 176), 0.92),
)
WALLS = (
    (188, 142, 118), (202, 178, 150), (170, 158, 150), (150, 156, 170), (206, 196, 176),
    (176, 128, 112),
)  # fmt: skip
CLOTHES = ((186, 66, 146), (92, 68, 158), (184, 112, 52), (48, 132, 140), (150, 60, 70))
SKIN = ((244, 206, 174), (224, 176, 140), (168, 116, 82), (112, 76, 54))
HAIR = ((48, 36, 30), (94, 62, 38), (28, 26, 28), (172, 134, 76))
CENTERS = {"left": 37, "middle": 70, "right": 103}
DARK = (38, 38, 42)

Color = tuple[int, int, int]
Box = tuple[int, int, int, int]


def shade(color: Color, factor: float) -> Color:
    """A darker (below 1) or lighter (above 1) tone of a colour."""
    if factor <= 1:
        return tuple(round(c * factor) for c in color)
    return tuple(round(c + (255 - c) * (factor - 1)) for c in color)


def vary(rng: random.Random, color: Color, by: int) -> Color:
    """The colour under another light: lighter or darker by at most `by`, hardly tinted."""
    light = rng.randint(-by, by)
    return tuple(max(0, min(255, c + light + rng.randint(-3, 3))) for c in color)


class Canvas:
    """A picture that is drawn in street units and smoothed by supersampling."""

    def __init__(self) -> None:
        self.size = (SIZE[0] * SUPERSAMPLING, SIZE[1] * SUPERSAMPLING)
        self.scale = self.size[0] / WIDTH
        self.image = Image.new("RGB", self.size)
        self.draw = ImageDraw.Draw(self.image)

    def _points(self, points) -> list[tuple[float, float]]:
        return [(x * self.scale, y * self.scale) for x, y in points]

    def rect(self, x0, y0, x1, y1, fill, outline=None, radius=0.0) -> None:
        width = max(1, round(0.4 * self.scale))
        box = self._points([(x0, y0), (x1, y1)])
        if radius:
            self.draw.rounded_rectangle(box, radius * self.scale, fill, outline, width)
        else:
            self.draw.rectangle(box, fill, outline, width)

    def oval(self, x0, y0, x1, y1, fill) -> None:
        self.draw.ellipse(self._points([(x0, y0), (x1, y1)]), fill)

    def shape(self, points, fill) -> None:
        self.draw.polygon(self._points(points), fill)

    def line(self, points, fill, width) -> None:
        self.draw.line(self._points(points), fill, max(1, round(width * self.scale)))

    def gradient(self, top: float, bottom: float, upper: Color, lower: Color) -> None:
        """Fill a band of the whole width with a vertical gradient."""
        y0, y1 = round(top * self.scale), round(bottom * self.scale)
        last = max(1, y1 - y0 - 1)
        bands = [
            [round(a + (b - a) * y / last) for y in range(y1 - y0)]
            for a, b in zip(upper, lower, strict=True)
        ]
        column = Image.new("RGB", (1, y1 - y0))
        column.putdata(list(zip(*bands, strict=True)))
        # Of one pixel's width: every filter gives the same, and this one takes no time.
        wide = column.resize((self.size[0], y1 - y0), Image.Resampling.NEAREST)
        self.image.paste(wide, (0, y0))

    def finished(self) -> Image.Image:
        return self.image.reduce(SUPERSAMPLING)


def draw_scene(scene: Scene, rng: random.Random) -> tuple[Image.Image, Box, Box]:
    """Draw a scene.

    Returns the picture (400 x 320, RGB), the vehicle's box and its sign's box, both
    as (x0, y0, x1, y1) in thousandths of the picture's width and height.
    """
    canvas = Canvas()
    horizon = rng.uniform(50, 57)
    center = CENTERS[scene.position] + rng.uniform(-3, 3)
    ground = rng.uniform(95, 100)
    _background(canvas, rng, horizon)
    _road(canvas, rng, horizon, on_rails=scene.kind == "tram", center=center, ground=ground)
    width = rng.uniform(49, 53)
    body = vary(rng, BODY[scene.body], 10)
    vehicle = _VEHICLES[scene.kind](canvas, rng, center, ground, width, body)
    top, sign_center, sign_top = vehicle
    sign = _sign(canvas, rng, scene, sign_center, sign_top)
    _people(canvas, rng, scene.people, center - width / 2, center + width / 2)
    box = (center - width / 2, top, center + width / 2, ground)
    return canvas.finished(), _thousandths(box), _thousandths(sign)


def _thousandths(box: tuple[float, float, float, float]) -> Box:
    scales = (WIDTH, HEIGHT, WIDTH, HEIGHT)
    return tuple(max(0, min(1000, round(1000 * v / s))) for v, s in zip(box, scales, strict=True))


def _background(canvas: Canvas, rng: random.Random, horizon: float) -> None:
    zenith, haze, light = rng.choice(SKIES)
    canvas.gradient(0, horizon + 1, vary(rng, zenith, 8), vary(rng, haze, 6))
    for _ in range(rng.randint(1, 3)):
        x, y, w = rng.uniform(0, 130), rng.uniform(4, 20), rng.uniform(9, 18)
        white = shade(haze, 1.55)
        canvas.oval(x, y, x + w, y + w * 0.28, white)
        canvas.oval(x + w * 0.2, y - w * 0.14, x + w * 0.7, y + w * 0.24, white)
    x = rng.uniform(-14, -4)
    while x < WIDTH:  # far houses, pale
        w, h = rng.uniform(9, 17), rng.uniform(16, 34)
        far = tuple((a + 2 * b) // 3 for a, b in zip(rng.choice(WALLS), haze, strict=True))
        canvas.rect(x, horizon - h, x + w, horizon, shade(far, light))
        x += w
    for left, right in ((-4, rng.uniform(16, 40)), (rng.uniform(100, 124), 144)):  # near houses
        x = left
        while x < right - 5:
            w = min(rng.uniform(15, 22), right - x)
            _house(canvas, rng, x, horizon, w, rng.uniform(28, 44), light)
            x += w
    for _ in range(rng.randint(1, 3)):
        x, h = rng.uniform(4, 136), rng.uniform(10, 16)
        canvas.rect(x - 0.7, horizon - h * 0.5, x + 0.7, horizon + 3, (96, 74, 56))
        leaf = vary(rng, (74, 124, 70), 14)
        canvas.oval(x - h * 0.38, horizon - h * 1.15, x + h * 0.38, horizon - h * 0.35, leaf)
        canvas.oval(
            x - h * 0.2, horizon - h * 1.1, x + h * 0.3, horizon - h * 0.6, shade(leaf, 1.16)
        )


def _house(canvas, rng, x, horizon, w, h, light) -> None:
    wall = shade(vary(rng, rng.choice(WALLS), 10), light)
    canvas.rect(x, horizon - h, x + w, horizon + 3, wall)
    canvas.rect(x, horizon - h, x + w, horizon - h + 1.2, shade(wall, 0.78))
    pane = rng.choice(((86, 104, 124), (110, 128, 142), (236, 206, 140)))
    columns = max(2, int(w // 5))
    for i in range(columns):
        left = x + (i + 0.5) * w / columns - 1.3
        y = horizon - h + 4
        while y < horizon - 7:
            canvas.rect(left, y, left + 2.6, y + 4, pane)
            y += 7
    canvas.rect(x + 1, horizon - 3.6, x + w - 1, horizon + 3, shade(wall, 0.6))


def _road(canvas, rng, horizon, *, on_rails, center, ground) -> None:
    pavement = vary(rng, (186, 182, 174), 8)
    asphalt = vary(rng, (104, 106, 112), 8)
    canvas.gradient(horizon, HEIGHT, shade(pavement, 0.92), pavement)
    vanish = 70
    canvas.shape(
        [(vanish - 15, horizon + 2), (vanish + 15, horizon + 2), (170, HEIGHT), (-30, HEIGHT)],
        asphalt,
    )
    for edge in (-1, 1):  # kerbs
        canvas.line(
            [(vanish + 15 * edge, horizon + 2), (vanish + 100 * edge, HEIGHT)],
            shade(pavement, 1.4),
            0.9,
        )
    if on_rails:
        for side in (-15, 15):
            start = vanish + (center - vanish) * 0.35 + side * 0.3
            canvas.line([(start, horizon + 2), (center + side * 1.25, HEIGHT)], (70, 66, 66), 1.6)
    else:
        for i in range(5):  # the dashed line in the middle of the road
            y0 = horizon + 5 + i * i * 2.6 + i * 2
            canvas.line([(vanish, y0), (vanish, y0 + 2 + i * 1.2)], (232, 228, 214), 0.6 + i * 0.3)
    canvas.oval(center - 30, ground - 4, center + 30, ground + 3.5, shade(asphalt, 0.55))


def _lights(canvas, x0, x1, y, color=(226, 40, 40)) -> None:
    for x in (x0 + 1.2, x1 - 4.6):
        canvas.rect(x, y, x + 3.4, y + 4.4, color, radius=0.8)
        canvas.rect(x, y + 4.6, x + 3.4, y + 6.4, (250, 170, 60), radius=0.6)


def _plate(canvas, center, y) -> None:
    canvas.rect(center - 5, y, center + 5, y + 2.8, (246, 246, 238), (60, 60, 60))


def _glass(canvas, x0, y0, x1, y1, radius=1.5) -> None:
    canvas.rect(x0, y0, x1, y1, (54, 72, 92), DARK, radius)
    w = x1 - x0
    canvas.shape(
        [(x0 + w * 0.56, y0 + 0.8), (x0 + w * 0.74, y0 + 0.8), (x0 + w * 0.54, y1 - 0.8),
         (x0 + w * 0.36, y1 - 0.8)],
        (92, 116, 138),
    )  # fmt: skip


def _wheels(canvas, x0, x1, ground, height, width=9.0) -> None:
    for x in (x0 + 3, x1 - 3 - width):
        canvas.rect(x, ground - height, x + width, ground, (30, 30, 33), radius=1.6)


def _bus(canvas, rng, center, ground, width, body):
    x0, x1, top = center - width / 2, center + width / 2, ground - 78
    _wheels(canvas, x0, x1, ground, 9)
    canvas.rect(x0, top, x1, ground - 4, body, DARK, 4)
    canvas.rect(x0 + 12, top + 2, x1 - 12, top + 6.5, (28, 28, 30), radius=1)
    canvas.line([(x0 + 16, top + 4.2), (x1 - 16, top + 4.2)], (250, 180, 60), 1.6)
    _glass(canvas, x0 + 4, top + 8, x1 - 4, top + 23, 2)
    canvas.rect(x0 + 0.6, ground - 13, x1 - 0.6, ground - 11.6, shade(body, 0.72))
    _lights(canvas, x0, x1, ground - 26)
    _plate(canvas, center, ground - 10)
    for side in (x0 - 2.2, x1 - 0.2):
        canvas.rect(side, top + 12, side + 2.4, top + 18, DARK, radius=0.8)
    return top, center + rng.uniform(-1, 1), ground - 52


def _truck(canvas, rng, center, ground, width, body):
    x0, x1, top = center - width / 2, center + width / 2, ground - 72
    _wheels(canvas, x0, x1, ground, 15, 12)
    canvas.rect(x0 + 5, ground - 17, x1 - 5, ground - 13, (74, 74, 80))
    canvas.rect(x0, top, x1, ground - 17, body, DARK, 1)
    canvas.rect(x0, top, x1, top + 3, shade(body, 0.75), DARK)
    canvas.line([(center, top + 3), (center, ground - 18)], shade(body, 0.55), 0.8)
    for x in (x0 + 4, x1 - 4):  # the rods of the doors
        canvas.line([(x, top + 4), (x, ground - 18)], shade(body, 0.62), 0.9)
    canvas.rect(x0 + 1, ground - 14, x1 - 1, ground - 10.5, (58, 58, 64), DARK)
    _lights(canvas, x0 + 1, x1 - 1, ground - 16.5)
    _plate(canvas, center, ground - 9.6)
    return top, center + rng.uniform(-1, 1), ground - 64


def _van(canvas, rng, center, ground, width, body):
    x0, x1, top = center - width / 2, center + width / 2, ground - 66
    _wheels(canvas, x0, x1, ground, 8, 8)
    canvas.shape(
        [(x0 + 7, top), (x1 - 7, top), (x1, top + 20), (x1, ground - 4), (x0, ground - 4),
         (x0, top + 20)],
        body,
    )  # fmt: skip
    canvas.rect(x0 - 1, ground - 22, x1 + 1, ground - 4, body, radius=3)
    _glass(canvas, x0 + 8.5, top + 3, center - 1, top + 17)
    _glass(canvas, center + 1, top + 3, x1 - 8.5, top + 17)
    canvas.rect(x0 - 1, ground - 9, x1 + 1, ground - 4.4, shade(body, 0.7), DARK, 1.4)
    _lights(canvas, x0 - 0.6, x1 + 0.6, ground - 30)
    _plate(canvas, center, ground - 8.2)
    return top, center + rng.uniform(-1, 1), ground - 46


def _tram(canvas, rng, center, ground, width, body):
    x0, x1, top = center - width / 2, center + width / 2, ground - 74
    canvas.line([(center - 9, top - 1), (center, top - 11), (center + 9, top - 1)], DARK, 1)
    canvas.line([(center - 13, top - 11), (center + 13, top - 11)], DARK, 1.1)
    canvas.line([(0, top - 11.6), (WIDTH, top - 11.6)], (70, 72, 78), 0.4)
    canvas.rect(x0 + 5, ground - 9, x1 - 5, ground - 1, (52, 52, 56))
    canvas.rect(x0, top, x1, ground - 6, body, DARK, 11)
    canvas.rect(x0 + 0.6, top + 19, x1 - 0.6, top + 21, shade(body, 1.5))
    _glass(canvas, x0 + 6, top + 5, x1 - 6, top + 18.5, 5)
    for x in (x0 + 4, x1 - 8.5):
        canvas.oval(x, ground - 16, x + 4.5, ground - 11.5, (252, 236, 170))
    canvas.rect(center - 4, ground - 9, center + 4, ground - 3, (96, 96, 102), DARK, 1)
    return top, center + rng.uniform(-1, 1), ground - 52


_VEHICLES = {"bus": _bus, "truck": _truck, "van": _van, "tram": _tram}


def _sign(canvas, rng, scene, center, top) -> tuple[float, float, float, float]:
    width, height = 36.0, 34.0
    x, y = center - width / 2, top
    color = vary(rng, SIGN[scene.sign_color], 8)
    pale_body = scene.body in ("white", "yellow")
    board = (74, 76, 86) if pale_body or scene.sign_color == "white" else (238, 236, 226)
    canvas.rect(x, y, x + width, y + height, board, DARK, 1)
    mx, my = x + width / 2, y + height / 2
    ink = shade(color, 0.7)
    match scene.sign:
        case "drink":
            right = [(2.6, -15), (3, -7), (8, -2), (8, 15.5)]
            outline = right + [(-dx, dy) for dx, dy in reversed(right)]
            canvas.shape([(mx + dx, my + dy) for dx, dy in outline], color)
            canvas.rect(mx - 3.2, my - 16, mx + 3.2, my - 12.8, ink, radius=0.6)
            canvas.rect(
                mx - 8, my + 2.5, mx + 8, my + 10, shade(board, 1.3 if board[0] < 99 else 1)
            )
            canvas.line([(mx - 5, my + 6.2), (mx + 5, my + 6.2)], color, 1.6)
        case "triangle":
            canvas.shape([(mx, my - 15), (mx + 17, my + 15), (mx - 17, my + 15)], color)
            canvas.rect(mx - 1.3, my - 4, mx + 1.3, my + 6, board)
            canvas.rect(mx - 1.3, my + 8.4, mx + 1.3, my + 11, board)
        case "cross":
            canvas.rect(mx - 16.5, my - 5.2, mx + 16.5, my + 5.2, color)
            canvas.rect(mx - 5.2, my - 16, mx + 5.2, my + 16, color)
        case "checks":
            canvas.rect(x + 0.7, y + 0.7, mx, my, color)
            canvas.rect(mx, my, x + width - 0.7, y + height - 0.7, color)
        case "stripes":
            for i in range(3):
                canvas.rect(x + 0.7, y + 2.2 + i * 11.2, x + width - 0.7, y + 8.9 + i * 11.2, color)
    return x, y, x + width, y + height


def _people(canvas, rng, count, left, right) -> None:
    """People stand on the free sides of the vehicle, never before it or one another."""
    places = [x for x in range(7, WIDTH - 5, 11) if x < left - 6 or x > right + 6]
    rng.shuffle(places)
    for place in sorted(places[:count]):
        _person(canvas, rng, place + rng.uniform(-1.2, 1.2), rng.uniform(99, 107))


def _person(canvas, rng, x, feet) -> None:
    coat, trousers = vary(rng, rng.choice(CLOTHES), 14), rng.choice(((52, 58, 84), (72, 68, 66)))
    skin, hair = rng.choice(SKIN), rng.choice(HAIR)
    canvas.oval(x - 5, feet - 1.4, x + 5, feet + 1.4, (84, 84, 90))
    for side in (-2.6, 0.4):
        canvas.rect(x + side, feet - 10, x + side + 2.2, feet, trousers)
    canvas.rect(x - 4.4, feet - 20, x + 4.4, feet - 8.5, coat, radius=2)
    for side in (-1, 1):
        canvas.line(
            [(x + side * 4.2, feet - 18.5), (x + side * 5, feet - 10.5)], shade(coat, 0.8), 1.8
        )
    canvas.oval(x - 3.2, feet - 27.4, x + 3.2, feet - 20, skin)
    canvas.draw.pieslice(
        canvas._points([(x - 3.5, feet - 28), (x + 3.5, feet - 20.6)]), 170, 370, hair
    )
