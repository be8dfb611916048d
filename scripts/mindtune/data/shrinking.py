"""Pictures as MindSpeed-MM reads them: in RGB, and shrunk to a number of pixels."""

import math
from pathlib import Path
from typing import IO

from PIL import Image

# Two patches of 14 pixels, merged: the least that Qwen2-VL makes a token of.
SMALLEST = 28


def read_shrunk(source: str | Path | IO[bytes], image_resolution: int) -> Image.Image:
    """Read a picture as RGB, by nearest neighbour shrunk to at most `image_resolution` pixels.

    `Qwen2vlPlugin._preprocess_image` of MindSpeed-MM 2.0.0, but for pictures more than 200 times
    as wide as high, which its image processor refuses.
    """
    with Image.open(source) as opened:
        image = opened.convert("RGB") if opened.mode != "RGB" else opened.copy()
    area = image.width * image.height
    if area > image_resolution:
        factor = math.sqrt(image_resolution / area)
        size = (int(image.width * factor), int(image.height * factor))
        image = image.resize(size, Image.Resampling.NEAREST)
    if min(image.size) < SMALLEST:
        size = (max(image.width, SMALLEST), max(image.height, SMALLEST))
        image = image.resize(size, Image.Resampling.NEAREST)
    return image
