"""Pictures small enough to travel within a page."""

import base64
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from mindtune.data.opening import read_picture

# Width and WebP quality, the best first; the first that keeps to the budget is taken.
STEPS = ((320, 70), (256, 65), (200, 60), (160, 50), (128, 45))
TRIED = 24


def data_uri(path: Path, width: int, quality: int) -> str:
    """A picture, not wider than `width`, as a WebP `data:` address.

    It has the pixels that the model saw and nothing that a browser could change them by: no EXIF
    data, which would turn it away from the boxes of answers, and no colour profile.

    Raises
    ------
    UserError: it can't be used; the sentence has its name.
    """
    small = read_picture(path, width)
    small.thumbnail((width, 2 * width), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=quality, exif=b"", icc_profile=b"")
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def embed(directory: Path, names: Iterable[str], budget: int) -> dict[str, str]:
    """`data:` addresses of pictures, by name, of `budget` characters in all.

    They are made smaller when they are many; what is still too much is left out, the last
    names first.
    """
    names = list(dict.fromkeys(names))
    width, quality = _step(directory, names, budget)
    found: dict[str, str] = {}
    used = 0
    for name in names:
        uri = data_uri(directory / name, width, quality)
        used += len(uri)
        if used > budget:
            break
        found[name] = uri
    return found


def _step(directory: Path, names: Sequence[str], budget: int) -> tuple[int, int]:
    tried = names[:: max(1, len(names) // TRIED)]
    for width, quality in STEPS:
        size = sum(len(data_uri(directory / name, width, quality)) for name in tried)
        if size / max(1, len(tried)) * len(names) <= 0.95 * budget:
            return width, quality
    return STEPS[-1]
