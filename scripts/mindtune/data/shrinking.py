"""Pictures as MindSpeed-MM reads them: in RGB, and shrunk to a number of pixels."""

import math
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from mindtune.data.headers import PRESSED
from mindtune.data.opening import TOO_SLENDER, BadPicture, read_rgb, refused, source_of

# Two patches of 14 pixels, merged: the framework's least side.
SMALLEST = 28
LONGEST, LONG = PRESSED, 180


def read_shrunk(path: str | Path, image_resolution: int) -> Image.Image:
    """Read a picture as RGB, shrunk; a zip file may be a part of its path.

    Raises
    ------
    UserError: it can't be used; the sentence has its name.
    """
    try:
        return shrink(read_rgb(source_of(path)), image_resolution)
    except BadPicture as error:
        raise refused(path, error) from None


def shrink(image: Image.Image, image_resolution: int) -> Image.Image:
    """An RGB picture, by nearest neighbour shrunk to at most `image_resolution` pixels.

    `_preprocess_image` of MindSpeed-MM 2.0.0's mm_plugin.py. A picture more than 200 times as wide as
    high, which the image processor would refuse, becomes one of 180 times; a high one likewise.

    Raises
    ------
    BadPicture: it is so slender that no pixel would be left in one direction.
    """
    for size in _sizes(image.size, image_resolution):
        image = image.resize(size, Image.Resampling.NEAREST)
    return image


def shrunk_size(size: tuple[int, int], image_resolution: int) -> tuple[int, int]:
    """The size of what `shrink` makes of a picture of some size.

    Raises
    ------
    BadPicture: it is so slender that no pixel would be left in one direction.
    """
    return [size, *_sizes(size, image_resolution)][-1]


def _sizes(size: tuple[int, int], image_resolution: int) -> Iterator[tuple[int, int]]:
    """The sizes that a picture gets, one after the other."""
    width, height = within(size, image_resolution)
    if (width, height) != size:
        yield width, height
    if min(width, height) < SMALLEST:
        width, height = max(width, SMALLEST), max(height, SMALLEST)
        yield width, height
    if width / height > LONGEST:
        width = height * LONG
        yield width, height
    if height / width > LONGEST:
        yield width, width * LONG


def within(size: tuple[int, int], image_resolution: int) -> tuple[int, int]:
    """Width and height of a picture after it was shrunk to at most `image_resolution` pixels.

    Raises
    ------
    BadPicture: it is so slender that no pixel would be left in one direction.
    """
    width, height = size
    if width * height <= image_resolution:
        return size
    factor = math.sqrt(image_resolution / (width * height))
    small = int(width * factor), int(height * factor)
    if not all(small):
        raise BadPicture(
            TOO_SLENDER,
            f"{width} x {height} pixels would become {small[0]} x {small[1]} by "
            f"processor.image_resolution {image_resolution}",
        )
    return small
