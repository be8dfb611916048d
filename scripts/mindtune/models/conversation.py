"""What the text of a conversation may hold, looked at where no model is known yet.

The families here have these tokens in common; the marks around objects, boxes and corners stand within
a text: `<|object_ref_start|>the bus<|object_ref_end|><|box_start|>(139,42),(703,771)<|box_end|>`.
"""

import re

# Tokens that frame a conversation and its pictures. Those that are in answers on purpose, for places
# in a picture, are text.
SPECIAL_TOKEN = re.compile(
    r"<\|(?:endoftext|im_start|im_end|vision_start|vision_end|vision_pad|image_pad|video_pad)\|>"
)
GROUNDING = tuple(
    f"<|{name}_{side}|>" for name in ("object_ref", "box", "quad") for side in ("start", "end")
)
_ANY = re.compile("|".join(map(re.escape, GROUNDING)))


def without_marks(text: str) -> str:
    """The text without the marks: `the bus(139,42),(703,771)`."""
    return _ANY.sub("", text)
