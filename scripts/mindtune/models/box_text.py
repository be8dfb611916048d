"""Where something is in a picture, in the one form in which it is compared and drawn.

That form is `the bus(139,42),(703,771)`: left, top, right and bottom in thousandths of width and height, which
the tutorial's model writes. Other families write JSON, `{"bbox_2d": [312, 71, 820, 702], "label": "the bus"}`, in
numbers of their own.
"""

import json
import re
from collections.abc import Sequence

THOUSAND = 1000
KEY = "bbox_2d"
_NUMBER = r"\s*(\d{1,6}(?:\.\d+)?)\s*"
_CORNERS = re.compile(rf'"{KEY}"\s*:\s*\[{",".join([_NUMBER] * 4)}\]')
_LABEL = re.compile(r'"label"\s*:\s*("(?:[^"\\]|\\.)*")')
_OBJECT = r"\{[^{}]*\}"
# One object or a list of them, which may be cut after one of them, as a block of code or not.
_BLOCK = re.compile(
    rf"(?:```(?:json)?\s*)?(?:\[\s*)?{_OBJECT}(?:\s*,\s*{_OBJECT})*(?:\s*(?:,\s*)?(?:\]|$))?(?:\s*```)?"
)


def has_json_box(text: str) -> bool:
    return f'"{KEY}"' in text


def in_thousandths(text: str, out_of: Sequence[int] | None) -> str:
    """The text with its boxes in JSON as `label(left,top),(right,bottom)`, in thousandths.

    out_of: as `mindtune.models.boxes.Boxes.out_of`; None where that isn't known, and the text stays as it is.
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
    """What a JSON text says; as it is written where that is none, or half of a surrogate pair, which no file takes."""
    try:
        said = json.loads(text, strict=False)
        said.encode()
    except ValueError:
        return text[1:-1]
    return said
