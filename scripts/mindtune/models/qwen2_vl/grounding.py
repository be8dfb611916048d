"""Qwen2-VL's marks around objects, boxes and corners: tokens of its own, within a text.

`<|object_ref_start|>the bus<|object_ref_end|><|box_start|>(139,42),(703,771)<|box_end|>`
"""

import re

NAMES = ("object_ref", "box", "quad")
TOKENS = tuple(f"<|{name}_{side}|>" for name in NAMES for side in ("start", "end"))
_ANY = re.compile("|".join(map(re.escape, TOKENS)))


def without(text: str) -> str:
    """The text without the marks: `the bus(139,42),(703,771)`."""
    return _ANY.sub("", text)
