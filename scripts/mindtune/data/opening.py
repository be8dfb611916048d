"""The one place that opens a picture: with Pillow's limits said, and its errors as sentences.

Pictures are seen as the training framework sees them: `Image.open(…).convert("RGB")`, the first frame
only, not turned as EXIF data say. Where that is not what a person would see, `Header.altered` says so.
"""

import re
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from PIL import Image, ImageFile, PngImagePlugin, UnidentifiedImageError

from mindtune.data.headers import ALTERED, MOST_PIXELS, MOST_SLENDER, fits, plain
from mindtune.data.pictures import MISSING, NO_FILE, NO_PICTURE, picture_file
from mindtune.errors import UserError

# Pillow warns above this number of pixels, and refuses twice as many. All of these are its defaults,
# under which MindSpeed-MM trains; they are written down so that nothing else in a process changes them.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2
PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = 1 << 20, 64 << 20
ImageFile.LOAD_TRUNCATED_IMAGES = False
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "JPEG2000", "AVIF", "PPM")
TOO_LARGE = f"the picture has more than {MOST_PIXELS} pixels"
BIG_TEXT = "the picture's text or colour profile has more than 1 MiB"
TOO_SLENDER = "the picture is too slender to be shrunk"
BROKEN = "the picture can't be decoded"
UNREADABLE = "the file can't be read"

ORIENTATION, UPRIGHT = 0x0112, 1
DEEP_MODES = frozenset(("I", "F", "I;16", "I;16B", "I;16L", "I;16N"))


class BadPicture(Exception):
    """A picture can't be used. kind: one of a few reasons, to be counted. why: with what is known."""

    def __init__(self, kind: str, detail: object = "") -> None:
        self.kind = kind
        self.why = f"{kind} ({detail})" if detail else kind
        super().__init__(self.why)


@dataclass(frozen=True)
class Header:
    """A picture's size in pixels, Pillow's mode, and keys of ALTERED that (may) hold for it."""

    width: int
    height: int
    mode: str
    altered: tuple[str, ...]


def read_header(source: Path | IO[bytes], *, decode: bool = False) -> Header:
    """What a picture is. `decode` also reads all pixels, by which `altered` is certain.

    Raises
    ------
    BadPicture
    """
    try:
        with _open(source) as image:
            _check_size(image)
            altered = _altered(image)
            if decode:
                image.load()
                image.convert("RGB")
                altered = [key for key in altered if _in_pixels(image, key)]
            return Header(image.width, image.height, image.mode, tuple(altered))
    except Exception as error:
        raise _bad(error) from error


def read_rgb(source: Path | IO[bytes], width: int | None = None) -> Image.Image:
    """A picture in RGB; `width` allows to decode it smaller, but not below that.

    Raises
    ------
    BadPicture
    """
    try:
        with _open(source) as image:
            _check_size(image)
            if width:
                image.draft("RGB", (width, width))
            return image.convert("RGB") if image.mode != "RGB" else image.copy()
    except Exception as error:
        raise _bad(error) from error


def source_of(path: str | Path) -> Path | IO[bytes]:
    """What to open for a picture.

    Raises
    ------
    BadPicture: there is none, or it is a directory, a pipe or a device. UserError: a damaged zip.
    """
    try:
        return picture_file(path)
    except FileNotFoundError as error:
        raise BadPicture(MISSING) from error
    except OSError as error:
        raise _bad(error) from error


def read_picture(path: str | Path, width: int | None = None) -> Image.Image:
    """The picture at a path, of which a zip file may be a part, in RGB; see read_rgb.

    Raises
    ------
    UserError: it can't be used; the sentence has its name.
    """
    try:
        return read_rgb(source_of(path), width)
    except BadPicture as error:
        raise refused(path, error) from None


def refused(path: str | Path, error: BadPicture) -> UserError:
    """The sentence about a picture that can't be used."""
    remedy = "put it back" if error.kind == MISSING else "replace or remove it"
    return UserError(
        f"the picture {path} can't be used: {error.why}; {remedy}, and run the same command again."
    )


@cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that the Pillow at hand knows. Others than these can start programs."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _open(source: Path | IO[bytes]) -> Image.Image:
    return Image.open(source, formats=_formats())


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise BadPicture(TOO_LARGE, f"{image.width} x {image.height}")
    if not fits(*image.size):
        raise BadPicture(
            TOO_SLENDER,
            f"{image.width} x {image.height} pixels; {MOST_SLENDER} times as long as wide is the most",
        )


def _bad(error: Exception) -> BadPicture:
    """What Pillow's error means. Its readers of formats let through whatever their parsing meets."""
    words = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
    if isinstance(error, BadPicture):
        return error
    if isinstance(error, UnidentifiedImageError):
        return BadPicture(NO_PICTURE)
    if isinstance(error, Image.DecompressionBombError):
        pixels = re.search(r"\d+", words)
        return BadPicture(TOO_LARGE, pixels[0] if pixels else "")
    if isinstance(error, MemoryError):
        return BadPicture(BROKEN, "it doesn't fit into memory")
    if isinstance(error, ValueError) and "MAX_TEXT" in words:
        return BadPicture(BIG_TEXT)
    if isinstance(error, FileNotFoundError):
        return BadPicture(MISSING)
    if isinstance(error, IsADirectoryError):
        return BadPicture(NO_FILE)
    if isinstance(error, OSError) and error.errno:
        return BadPicture(UNREADABLE, error.strerror)
    return BadPicture(BROKEN, words)


def _altered(image: Image.Image) -> list[str]:
    """Keys of ALTERED, by a header alone: a picture with an alpha channel may be opaque."""
    found = {
        "transparent": image.has_transparency_data,
        "deep": image.mode in DEEP_MODES,
        "ink": image.mode == "CMYK",
        "frames": image.format != "MPO" and getattr(image, "is_animated", False),
        "pressed": not plain(*image.size),
        "turned": _orientation(image) not in (0, UPRIGHT),
    }
    return [key for key in ALTERED if found[key]]


def _orientation(image: Image.Image) -> int:
    # Looking for EXIF data after the pixels of a PNG would decode it.
    if image.format == "PNG" and "exif" not in image.info:
        return UPRIGHT
    return image.getexif().get(ORIENTATION, UPRIGHT)


def _in_pixels(image: Image.Image, key: str) -> bool:
    if key == "transparent":
        return image.convert("RGBA").getextrema()[3][0] < 255
    if key == "deep":
        low, high = image.getextrema()
        return low < 0 or high > 255 or (image.mode == "F" and high <= 1)
    return True
