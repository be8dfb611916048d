"""Pictures as MindSpeed-MM reads them: in RGB, and shrunk to a number of pixels."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from PIL import Image

# Two patches of 14 pixels, merged: the least that Qwen2-VL makes a token of.
SMALLEST = 28
LONGEST, LONG = 200, 180


def read_shrunk(source: str | Path | IO[bytes], image_resolution: int) -> Image.Image:
    """Read a picture as RGB, by nearest neighbour shrunk to at most `image_resolution` pixels.

    `Qwen2vlPlugin._preprocess_image` of MindSpeed-MM 2.0.0. A picture more than 200 times as wide as
    high, which the image processor would refuse, becomes one of 180 times; a high one likewise.
    """
    with Image.open(source) as opened:
        image = opened.convert("RGB") if opened.mode != "RGB" else opened.copy()
    for size in _sizes(*image.size, image_resolution):
        image = image.resize(size, Image.Resampling.NEAREST)
    return image


def shrunk_size(width: int, height: int, image_resolution: int) -> tuple[int, int]:
    """The size of what `read_shrunk` makes of a picture of some size."""
    return [(width, height), *_sizes(width, height, image_resolution)][-1]


def _sizes(width: int, height: int, image_resolution: int) -> Iterator[tuple[int, int]]:
    """The sizes that a picture gets, one after the other."""
    area = width * height
    if area > image_resolution:
        factor = math.sqrt(image_resolution / area)
        width, height = int(width * factor), int(height * factor)
        yield width, height
    if min(width, height) < SMALLEST:
        width, height = max(width, SMALLEST), max(height, SMALLEST)
        yield width, height
    if width / height > LONGEST:
        width = height * LONG
        yield width, height
    if height / width > LONGEST:
        yield width, width * LONG
