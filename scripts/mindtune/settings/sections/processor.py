"""The section `processor`."""

from typing import Annotated

from mindtune.settings.kinds import Whole
from mindtune.settings.section import Section, key


class Processor(Section):
    """From a picture to tokens."""

    image_resolution: Annotated[int, Whole(784, 100_000_000)] = key(
        262_144,
        "Pixels (width x height) above which a picture is shrunk first.",
        "像素数（宽 × 高）超过此值的图片先缩小。",
    )
