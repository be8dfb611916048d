"""The marks and names that a conversation holds, in whatever form it is written."""

import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

IMAGE_MARK = "<image>"
VIDEO_MARK = "<video>"  # to the training framework; it stops, as a record here has no videos
# Qwen2-VL's tokens that frame a conversation and its pictures. Those that are in answers on
# purpose, for places in a picture (`<|box_start|>` and the like), are text.
SPECIAL_TOKEN = re.compile(
    r"<\|(?:endoftext|im_start|im_end|vision_start|vision_end|vision_pad|image_pad|video_pad)\|>"
)
ADDRESS = re.compile(r"(?:https?|ftp|file|s3|oss|obs|gs|hf|data):", re.IGNORECASE)
# What MindSpeed-MM's template says where a conversation has no system text of its own.
SYSTEM_PROMPT = "You are a helpful assistant."


def system_and_turns(messages: Sequence[Mapping]) -> tuple[str | None, Sequence[Mapping]]:
    """The system text of mllm-format messages, None for the template's own, and the turns."""
    if messages and messages[0]["role"] == "system":
        return messages[0]["content"], messages[1:]
    return None, messages


def one_name(name: str) -> str:
    """A picture's one name of all that lead to it: `a.jpg` for `./a.jpg` and `sub/../a.jpg`."""
    return posixpath.normpath(name) if "/" in name else name


def leads_out(name: str) -> bool:
    """Whether the name of a picture leads out of the directory of pictures, or is none."""
    if name.isascii() and "/" not in name and "\0" not in name and name != "..":
        return False
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not is_unicode(name):
        return True
    return is_address(name)


def is_address(name: str) -> bool:
    """Whether a picture's name is an address, or holds the picture itself."""
    return "/" in name and ADDRESS.match(name) is not None


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: it has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
