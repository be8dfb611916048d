"""Pictures of every kind: which can be used, what the model sees of them, and what the pages show."""

import base64
import io
import itertools
import json
import os

import numpy as np
import pytest
from mindtune.data.check import look_at
from mindtune.data.headers import ALTERED, HEAD, TAIL, sound
from mindtune.data.looking import Looking
from mindtune.data.mllm import convert
from mindtune.data.opening import read_header, read_picture
from mindtune.data.pictures import Directory, open_pictures
from mindtune.data.shrinking import read_shrunk
from mindtune.errors import UserError
from mindtune.report.pictures import data_uri
from mindtune.report.sheet import PICTURE, WIDTH, _card
from mindtune.report.words import Words
from PIL import Image, PngImagePlugin

BLUE, WHITE = (0, 0, 255), (255, 255, 255)


def stored(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def scene(mode="RGB", size=(80, 40)):
    """The left half is blue."""
    image = Image.new("RGB", size, WHITE)
    image.paste(BLUE, (0, 0, size[0] // 2, size[1]))
    return image if mode == "RGB" else image.convert(mode)


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def text(count):
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * count, zip=True)
    return info


def hidden(opacity):
    """Black all over; only its alpha channel has a scene."""
    image = Image.new("LA", (80, 40), 0)
    image.putalpha(opacity)
    return image


GREY16 = Image.fromarray(np.full((40, 80), 40_000, np.uint16))
FRACTIONS = Image.fromarray(np.full((40, 80), 0.5, np.float32))
MORE = {"save_all": True, "append_images": [Image.new("RGB", (80, 40), BLUE)]}
BROKEN = "the picture can't be decoded"
# What is the matter, or None; keys of ALTERED by the header; those that the pixels confirm.
KINDS = {
    "a.jpg": (stored(scene(), "JPEG"), None, (), ()),
    "UPPER.JPG": (stored(scene(), "JPEG"), None, (), ()),
    "progressive.jpg": (stored(scene(), "JPEG", progressive=True), None, (), ()),
    "grey.jpg": (stored(scene("L"), "JPEG"), None, (), ()),
    "upright.jpg": (stored(scene(), "JPEG", exif=exif(1)), None, (), ()),
    "turned.jpg": (stored(scene(), "JPEG", exif=exif(6)), None, ("turned",), ("turned",)),
    "turned.png": (stored(scene(), "PNG", exif=exif(6)), None, ("turned",), ("turned",)),
    "print.jpg": (stored(scene("CMYK"), "JPEG"), None, ("ink",), ("ink",)),
    "a.png": (stored(scene(), "PNG"), None, (), ()),
    "png_named.jpg": (stored(scene(), "PNG"), None, (), ()),
    "bilevel.png": (stored(scene("1"), "PNG"), None, (), ()),
    "palette.png": (stored(scene("P"), "PNG"), None, (), ()),
    "profile.png": (stored(scene(), "PNG", icc_profile=b"x" * 5000), None, (), ()),
    "opaque.png": (stored(scene("RGBA"), "PNG"), None, ("transparent",), ()),
    "hidden.png": (stored(hidden(scene("L")), "PNG"), None, ("transparent",), ("transparent",)),
    "see_through.png": (stored(scene("P"), "PNG", transparency=scene("P").getpixel((0, 0))), None,
                        ("transparent",), ("transparent",)),
    "grey16.png": (stored(GREY16, "PNG"), None, ("deep",), ("deep",)),
    "dark16.png": (stored(Image.fromarray(np.full((40, 80), 200, np.uint16)), "PNG"), None, ("deep",), ()),
    "fractions.tif": (stored(FRACTIONS, "TIFF"), None, ("deep",), ("deep",)),
    "a.tif": (stored(scene(), "TIFF"), None, (), ()),
    "big.tif": (stored(scene(), "TIFF", big_tiff=True), None, (), ()),
    "a.gif": (stored(scene("P"), "GIF"), None, (), ()),
    "two.gif": (stored(scene(), "GIF", **MORE), None, ("frames",), ("frames",)),
    "two.webp": (stored(scene(), "WEBP", **MORE), None, ("frames",), ("frames",)),
    "a.webp": (stored(scene(), "WEBP"), None, (), ()),
    "a.bmp": (stored(scene(), "BMP"), None, (), ()),
    "a.jp2": (stored(scene(), "JPEG2000"), None, (), ()),
    "a.avif": (stored(scene(), "AVIF"), None, (), ()),
    "a.ppm": (stored(scene(), "PPM"), None, (), ()),
    "long.png": (stored(Image.new("RGB", (6000, 2)), "PNG"), None, ("pressed",), ("pressed",)),
    "1_by_400000.png": (stored(Image.new("RGB", (1, 400_000)), "PNG"),
                        "the picture is too slender to be shrunk", None, None),
    "text.png": (stored(scene(), "PNG", pnginfo=text(3 << 20)),
                 "the picture's text or colour profile has more than 1 MiB", None, None),
    "bomb.png": (stored(Image.new("1", (20_000, 10_000)), "PNG"),
                 "the picture has more than 178956970 pixels", None, None),
    "cut.jpg": (stored(scene(), "JPEG")[:-300], BROKEN, None, None),
    "cut.png": (stored(scene(), "PNG")[:-40], BROKEN, None, None),
    "padded.jpg": (stored(scene(), "JPEG") + bytes(64), None, (), ()),
    "page.jpg": (b"<html>not found</html>", "the file is not a picture", None, None),
    "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
                   "the file is not a picture", None, None),
    "zeros.jpg": (bytes(5000), "the file is not a picture", None, None),
    "empty.jpg": (b"", "the file is empty", None, None),
}  # fmt: skip
UNUSABLE = [name for name, (_, fault, *_) in KINDS.items() if fault]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    place = tmp_path_factory.mktemp("kinds") / "images"
    place.mkdir()
    for name, (content, *_) in KINDS.items():
        (place / name).write_bytes(content)
    os.mkfifo(place / "pipe.jpg")
    return place


@pytest.mark.parametrize("name", KINDS)
def test_a_header_tells_what_a_picture_is(images, name):
    _, fault, altered, _ = KINDS[name]
    looking = Looking(open_pictures(images))
    assert looking.fault(name) == fault
    assert looking.altered.get(name, ()) == (altered or ())


@pytest.mark.parametrize("name", KINDS)
def test_the_deep_check_agrees_and_is_certain_of_the_pixels(images, name):
    _, fault, _, certain = KINDS[name]
    seen = look_at(images, name)
    assert (seen.fault or "").startswith(fault or "")
    assert bool(seen.fault) == bool(fault)
    assert seen.altered == (certain or ())


@pytest.mark.parametrize("name", UNUSABLE)
def test_every_place_that_opens_a_picture_names_it(images, name):
    reason = KINDS[name][1] if KINDS[name][0] else "the file is not a picture"
    for opened in (
        lambda path: read_shrunk(path, 512 * 512),
        read_picture,
        lambda path: data_uri(path, 100, 50),
    ):
        with pytest.raises(
            UserError, match=rf"{name} can't be used: {reason}.*same command"
        ) as caught:
            opened(images / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["pipe.jpg", "gone.jpg", "directory"])
def test_what_is_no_file_is_a_sentence_and_is_not_waited_for(images, name):
    (images / "directory").mkdir(exist_ok=True)
    reason = (
        "the image is missing"
        if name == "gone.jpg"
        else "it is not a file, but a directory, a pipe"
    )
    assert Looking(open_pictures(images)).fault(name).startswith(reason)
    assert look_at(images, name).fault.startswith(reason)
    with pytest.raises(UserError, match=f"{name} can't be used: {reason}"):
        read_picture(images / name)


def test_a_device_is_no_picture():
    assert (
        Directory("/dev").glance("zero") == "it is not a file, but a directory, a pipe or a device"
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_what_is_found_sound_without_pillow_is_sound_to_pillow(kind):
    """The quick look refuses nothing and hides nothing, whatever byte of a header is changed."""
    taken = 0
    whole = stored(scene(), kind)
    for place, value in itertools.product(range(2, min(200, len(whole))), (0, 1, 16, 0x7F, 0xFF)):
        content = bytearray(whole)
        content[place] = value
        if sound(bytes(content[:HEAD]), bytes(content[-TAIL:])):
            taken += 1
            assert read_header(io.BytesIO(content)).altered == ()
    assert taken > 100


def converted(images, out, names=KINDS, **options):
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It."}]
    out.mkdir(exist_ok=True)
    records = [{"id": name, "image": name, "conversations": turns} for name in names]
    (out / "llava.json").write_text(json.dumps(records))
    outputs = [out / name for name in ("train.json", "held_out.json", "conversion.json")]
    settings = {"held_out_fraction": 0.0, "split_seed": 1, "max_dropped_fraction": 0.5}
    report = convert(out / "llava.json", images, *outputs, **settings | options)
    return report, [path.read_bytes() for path in outputs]


def test_the_conversion_counts_what_the_model_sees_otherwise(images, tmp_path):
    report, (train, *_) = converted(images, tmp_path)
    assert sum(report["dropped"].values()) == len(UNUSABLE)
    assert {r["images"][0] for r in json.loads(train)} == set(KINDS) - set(UNUSABLE)
    assert report["altered"]["deep"] == {
        "count": 3,
        "first": ["grey16.png", "dark16.png", "fractions.tif"],
    }
    assert set(report["altered"]) == set(ALTERED)


def test_how_fast_one_looks_never_changes_which_files_are_pictures(images, tmp_path, monkeypatch):
    wanted = converted(images, tmp_path / "a", check_pictures="signature")
    quick = tmp_path / "b"
    assert converted(images, quick, check_pictures="size") == wanted
    looked = []
    glance = Directory.glance
    monkeypatch.setattr(
        Directory, "glance", lambda self, name: (looked.append(name), glance(self, name))[1]
    )
    assert converted(images, quick, check_pictures="size") == wanted
    assert looked == ["empty.jpg"]  # nothing else is opened again
    for damage in ("{", '[1, "elsewhere", {}]', "[1]"):
        (quick / ".pictures.json").write_text(damage)
        assert converted(images, quick, check_pictures="size") == wanted
    (tmp_path / "c").mkdir()
    (tmp_path / "c/a.jpg").write_bytes(stored(scene(), "JPEG"))
    assert converted(tmp_path / "c", quick, ["a.jpg"], check_pictures="size")[0]["dropped"] == {}
    (tmp_path / "c/a.jpg").write_bytes(b"<html>")
    with pytest.raises(UserError, match="the file is not a picture: 1;"):
        converted(tmp_path / "c", quick, ["a.jpg"], check_pictures="size")


@pytest.mark.parametrize("name", ["turned.jpg", "turned.png"])
def test_a_page_shows_the_pixels_as_the_model_saw_them(images, name):
    """A box on the left half, where the model saw blue, has blue within it on both pages."""
    shown = base64.b64decode(data_uri(images / name, 800, 90).split(",")[1])
    with Image.open(io.BytesIO(shown)) as image:
        assert image.size == (80, 40) and not image.getexif() and "icc_profile" not in image.info
        left, right = (
            image.convert("RGB").getpixel((20, 20)),
            image.convert("RGB").getpixel((60, 20)),
        )
    assert left[2] > 200 > 60 > left[0] and min(right) > 200
    row = {"image": name, "before": "(10,10),(490,990)", "after": "", "prompt": "Where?",
           "image_in_training": False, "reference": None}  # fmt: skip
    card = _card(row, images, chinese=False, words=Words("en"))
    middle = 12 + PICTURE // 2
    left, right = (
        card.getpixel((12 + (WIDTH - 26) // 4, middle)),
        card.getpixel((WIDTH - 120, middle)),
    )
    assert left[2] > 200 > 60 > left[0] and min(right) > 200


def test_what_a_page_embeds_has_no_colour_profile(tmp_path):
    scene().save(tmp_path / "a.png", icc_profile=b"x" * 5000)
    assert len(data_uri(tmp_path / "a.png", 80, 50)) < 2000


def test_transparent_and_deep_pictures_are_seen_as_the_framework_sees_them(images):
    for name, extrema in (
        ("hidden.png", (0, 0)),
        ("grey16.png", (255, 255)),
        ("fractions.tif", (0, 0)),
    ):
        assert read_shrunk(images / name, 512 * 512).getextrema() == (extrema,) * 3
