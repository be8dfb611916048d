"""How a family's models say where something is in a picture, and the one form in which it is compared and drawn.

That form is `the bus(139,42),(703,771)`: left, top, right and bottom in thousandths of width and height, as
Qwen2-VL writes it. Later families write JSON, `{"bbox_2d": [312, 71, 820, 702], "label": "the bus"}`, in
numbers of their own.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mindtune.models import family, room
from mindtune.models.shape import read_config

THOUSAND = 1000
KEY = "bbox_2d"
_NUMBER = r"\s*(\d{1,6}(?:\.\d+)?)\s*"
_CORNERS = re.compile(rf'"{KEY}"\s*:\s*\[{",".join([_NUMBER] * 4)}\]')
_LABEL = re.compile(r'"label"\s*:\s*("(?:[^"\\]|\\.)*")')
_OBJECT = r"\{[^{}]*\}"
# One object or a list of them, which may be cut after one of them, as a block of code or not.
_BLOCK = re.compile(
    rf"(?:```(?:json)?\s*)?(?:\[\s*)?{_OBJECT}(?:\s*,\s*{_OBJECT})*(?:\s*,?\s*(?:\]|$))?(?:\s*```)?"
)


@dataclass(frozen=True)
class Boxes:
    """pixels: whether the numbers in JSON are pixels of the picture as the vision model gets it, and not thousandths
    of its sides."""

    pixels: bool

    def out_of(self, sides: tuple[int, int]) -> tuple[int, int]:
        """What the numbers in JSON are out of, across and down. sides: width and height of that picture."""
        return sides if self.pixels else (THOUSAND, THOUSAND)


def boxes_of(hf_dir: str | Path) -> Boxes:
    """How the model in a Hugging Face directory writes boxes.

    Raises
    ------
    UserError: its config.json is not there, or of no family here.
    """
    model_type = family(read_config(hf_dir), str(Path(hf_dir) / "config.json"))
    return room(model_type, "boxes").BOXES


def has_json_box(text: str) -> bool:
    return f'"{KEY}"' in text


def in_thousandths(text: str, out_of: Sequence[int] | None) -> str:
    """The text with its boxes in JSON as `label(left,top),(right,bottom)`, in thousandths.

    out_of: as `Boxes.out_of`; None where that isn't known, and the text stays as it is.
    """
    if out_of is None or not has_json_box(text):
        return text
    return _BLOCK.sub(lambda block: _as_text(block[0], out_of), text).strip()


def corners(box: Sequence[int], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom in pixels of a picture of that width and height, of a box in thousandths."""
    (left, top, right, bottom), (width, height) = box, size
    return (
        left * width / THOUSAND, top * height / THOUSAND,
        right * width / THOUSAND, bottom * height / THOUSAND,
    )  # fmt: skip


def _as_text(block: str, out_of: Sequence[int]) -> str:
    found = [_box(part, out_of) for part in re.findall(_OBJECT, block)]
    return block if None in found else ", ".join(found)


def _box(text: str, out_of: Sequence[int]) -> str | None:
    """An object's label and box; None where it has no box."""
    corners = _CORNERS.search(text)
    if not corners:
        return None
    across, down = out_of
    left, top, right, bottom = (
        round(THOUSAND * float(number) / side)
        for number, side in zip(corners.groups(), (across, down, across, down), strict=True)
    )
    label = _LABEL.search(text)
    return f"{_unquoted(label[1]) if label else ''}({left},{top}),({right},{bottom})"


def _unquoted(text: str) -> str:
    try:
        return json.loads(text, strict=False)
    except ValueError:
        return text[1:-1]
