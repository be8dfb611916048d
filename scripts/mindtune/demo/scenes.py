"""What is in a drawn street scene, and what can be asked and said about it.

A scene is a vehicle seen from behind, with something on its back, and people
near it. The drawing itself is in `drawing.py`; here is only what it means. The
same seed gives the same scenes on every machine (Python's own generator, seeded
with strings, is stable across versions and platforms).
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

KINDS = ("bus", "truck", "van", "tram")
BODY_COLORS = ("red", "blue", "green", "yellow", "white", "black")
SIGN_COLORS = ("red", "blue", "green", "orange", "white")
SIGNS = {
    "drink": "advertisement for a drink",
    "stripes": "pattern of stripes",
    "triangle": "warning triangle",
    "cross": "cross",
    "checks": "checkered panel",
}
POSITIONS = {"left": "on the left side", "middle": "in the middle", "right": "on the right side"}
COUNTS = ("no people", "one person", "two people", "three people")

# The picture and the question of the tutorial (COCO train2017).
TUTORIAL_IMAGE_ID = 33471
FAMILIES = ("kind", "color", "feature", "sign", "position", "count")
TUTORIAL_FAMILIES = ("feature", "color", "position", "count")

TEXT_ONLY = (
    ("What does a red traffic light mean?", "A red traffic light means stop."),
    ("What does a green traffic light mean?", "A green traffic light means go."),
    ("How many wheels does a bus have?", "A bus has at least four wheels."),
    ("Where does a tram run?", "A tram runs on rails in the street."),
    ("What does a warning triangle tell you?", "A warning triangle tells you to take care."),
    ("Who drives a bus?", "A bus driver drives a bus."),
)


@dataclass(frozen=True)
class Scene:
    """One street scene: everything a question may be about."""

    kind: str
    body: str
    sign: str
    sign_color: str
    position: str
    people: int


def sample_scene(rng: random.Random) -> Scene:
    """Draw a scene from all combinations; the sign never has the body's colour."""
    body = rng.choice(BODY_COLORS)
    return Scene(
        kind=rng.choice(KINDS),
        body=body,
        sign=rng.choice(tuple(SIGNS)),
        sign_color=rng.choice([color for color in SIGN_COLORS if color != body]),
        position=rng.choice(tuple(POSITIONS)),
        people=rng.randrange(len(COUNTS)),
    )


def scenes(count: int, seed: int | str, with_tutorial: bool = False) -> Iterator[tuple[int, Scene]]:
    """Yield `count` (image id, scene) in order of id, ids as in COCO (below 581,930).

    With `with_tutorial` one of them is image 33471: a bus with a drink on its back.
    """
    rng = random.Random(f"scenes/{seed}")
    for image_id in _ids(rng, count, with_tutorial):
        scene = sample_scene(rng)
        if with_tutorial and image_id == TUTORIAL_IMAGE_ID:
            scene = Scene("bus", "red", "drink", "blue", "middle", 2)
        yield image_id, scene


def _ids(rng: random.Random, count: int, with_tutorial: bool) -> list[int]:
    ids = sorted(rng.sample(range(1, 581_930), count))
    if with_tutorial and TUTORIAL_IMAGE_ID not in ids:
        nearest = min(range(count), key=lambda i: abs(ids[i] - TUTORIAL_IMAGE_ID))
        ids[nearest] = TUTORIAL_IMAGE_ID
    return ids


def image_names(count: int, seed: int) -> list[str]:
    """The file names of the demo's pictures, without drawing any."""
    ids = _ids(random.Random(f"scenes/{seed}"), count, with_tutorial=True)
    return [f"{image_id:012d}.jpg" for image_id in ids]


def question_and_answer(scene: Scene, family: str) -> tuple[str, str]:
    """The question of a family about a scene, and its answer in a full sentence."""
    kind = scene.kind
    match family:
        case "kind":
            return "What type of vehicle is in the image?", f"The vehicle in the image is a {kind}."
        case "color":
            return f"What is the color of the {kind}?", f"The color of the {kind} is {scene.body}."
        case "feature":
            return (
                f"What feature can be seen on the back of the {kind}?",
                f"On the back of the {kind}, there is a large {SIGNS[scene.sign]}.",
            )
        case "sign":
            return (
                f"What color is the sign on the {kind}?",
                f"The sign on the {kind} is {scene.sign_color}.",
            )
        case "position":
            return (
                f"Where is the {kind} in the image?",
                f"The {kind} is {POSITIONS[scene.position]} of the image.",
            )
        case "count":
            verb = "is" if scene.people == 1 else "are"
            return (
                f"How many people are near the {kind}?",
                f"There {verb} {COUNTS[scene.people]} near the {kind}.",
            )
    raise ValueError(f"no question family {family!r}")


def conversation(scene: Scene, rng: random.Random, turns: int = 4) -> list[tuple[str, str]]:
    """Some questions about a scene in random order, with their answers.

    What the vehicle is can only be asked first: every other question names it.
    """
    families = [family for family in FAMILIES if family != "kind"]
    rng.shuffle(families)
    if rng.random() < 0.5:
        families.insert(0, "kind")
    return [question_and_answer(scene, family) for family in families[:turns]]


def grounding_answer(question: str, box: tuple[int, int, int, int]) -> str:
    """What a base model that was taught grounding says: the question's words and a box.

    `box` is (x0, y0, x1, y1) in thousandths of the picture's width and height, as
    Qwen2-VL writes boxes. Shown without its special tokens this is the tutorial's
    "the feature can be seen on the back of the bus(139,42),(703,771)".
    """
    phrase = question.rstrip("?")
    for opening, replacement in (
        ("What type of ", "the "),
        ("What is the ", "the "),
        ("What color is ", ""),
        ("What ", "the "),
        ("How many ", "the "),
        ("Where is ", ""),
    ):
        if phrase.startswith(opening):
            phrase = replacement + phrase.removeprefix(opening)
            break
    x0, y0, x1, y1 = box
    return (
        f"<|object_ref_start|>{phrase}<|object_ref_end|>"
        f"<|box_start|>({x0},{y0}),({x1},{y1})<|box_end|>"
    )


CAPTION_REQUESTS = (
    "Describe the image.",
    "Describe this image in detail.",
    "Write a caption for the image.",
)


def caption(scene: Scene) -> str:
    """A caption that says all there is to say: what teaches the base model to see."""
    article = "An" if scene.sign_color[0] in "aeiou" else "A"
    return (
        f"A {scene.body} {scene.kind} {POSITIONS[scene.position]} of the street. "
        f"{article} {scene.sign_color} {SIGNS[scene.sign]}. {COUNTS[scene.people].capitalize()}."
    )
