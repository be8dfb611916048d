"""The form of LLaVA-Instruct: what a record holds, and which ones can't be trained on.

`{"id", "image", "conversations": [{"from": "human" | "gpt", "value"}]}`. A record on which the
training framework would stop is refused by `check_record`. One that it would take, but not as
its writer meant it, has a reason to be left out, `unfit`. Keys that are not read are named.
"""

import posixpath
import re
import reprlib
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import PurePosixPath

from mindtune.errors import UserError

IMAGE_MARK = "<image>"
VIDEO_MARK = "<video>"  # to the training framework; it stops, as a record here has no videos
ROLES = {"human": "user", "gpt": "assistant"}
ALTERNATING = {turns: ["human", "gpt"] * (turns // 2) for turns in range(2, 201, 2)}
ROLE, VALUE = itemgetter("from"), itemgetter("value")
RECORD_KEYS = frozenset(("id", "image", "conversations"))
TURN_KEYS = frozenset(("from", "value"))
# Qwen2-VL's tokens that frame a conversation and its pictures. Those that stand in answers on
# purpose, for places in a picture (`<|box_start|>` and the like), are text.
SPECIAL_TOKEN = re.compile(
    r"<\|(?:endoftext|im_start|im_end|vision_start|vision_end|vision_pad|image_pad|video_pad)\|>"
)
# Keys of other forms that change what a record means, and the values with which they don't.
EMPTY = (None, "", [], {})
CHANGING = (
    dict.fromkeys(
        (
            "images", "video", "videos", "audio", "audios", "system", "system_prompt", "tools",
            "functions", "messages", "history", "objects", "chosen", "rejected",
            "rejected_response",
        ),
        EMPTY,
    )
    | dict.fromkeys(("weight", "weights", "loss", "loss_weight", "train"), (*EMPTY, 1))
    | dict.fromkeys(("mask",), (*EMPTY, 0))
)  # fmt: skip
# Values for a sentence, cut where they are long or deep.
_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 80


def images_of(record: Mapping) -> Sequence[str]:
    """The names of a record's pictures: none, one (a text), or several (a list of texts)."""
    image = record.get("image")
    if not image:
        return ()
    if isinstance(image, str):
        return (one_name(image),) if "/" in image else (image,)
    if isinstance(image, list):
        return [one_name(name) if isinstance(name, str) else name for name in image]
    return image


def one_name(name: str) -> str:
    """A picture's one name of all that lead to it: `a.jpg` for `./a.jpg` and `sub/../a.jpg`."""
    return posixpath.normpath(name) if "/" in name else name


def sound_values(record: Mapping, images: Sequence[str]) -> list[str] | None:
    """The texts of a record's turns, or None when the record should be looked at closely.

    A short way for the many records about which there is nothing to say.
    """
    try:
        turns = record["conversations"]
        values = list(map(VALUE, turns))
        text = "".join(values)
        sound = (
            list(map(ROLE, turns)) == ALTERNATING.get(len(turns))
            and RECORD_KEYS.issuperset(record)
            and max(map(len, turns)) == len(TURN_KEYS)
            and all(map(str.strip, values))
            and type(images) is tuple
            and values[0].count(IMAGE_MARK) == len(images)
            and text.count("<") == len(images)  # no other mark, and no special token
        )
    except (KeyError, TypeError, ValueError):
        return None
    return values if sound else None


def check_record(record: Mapping, number: int) -> None:
    """Refuse a record on which the training framework would stop in mid-course.

    Raises
    ------
    UserError: an unknown role, turns that don't alternate, an odd number of turns, a turn
        that is no text, an image that is no name within the directory of pictures, or
        another number of `<image>` marks than of images.
    """
    here = f"record {number} (id {_shown.repr(record.get('id', 'missing'))})"
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise UserError(f"{here} has no `conversations`; it must have a list of turns.")
    for position, turn in enumerate(turns):
        _check_turn(turn, position, f"{here}, turn {position}")
    if len(turns) % 2:
        raise UserError(
            f"{here} has {len(turns)} turns, an odd number: its last question has no answer."
        )
    images = images_of(record)
    if not isinstance(images, (list, tuple)) or not all(
        isinstance(name, str) and name for name in images
    ):
        raise UserError(
            f"{here}: `image` is {_shown.repr(record['image'])}, but must be a file name, or a list of "
            "them."
        )
    for name in images:
        if leads_out(name):
            raise UserError(
                f"{here}: `image` is {_shown.repr(name)}, but must be a file name within the directory "
                "of pictures."
            )
    marks = sum(turn["value"].count(IMAGE_MARK) for turn in turns)
    if marks != len(images):
        raise UserError(
            f"{here} has {marks} `{IMAGE_MARK}` marks, but {len(images)} "
            f"image{'s' if len(images) > 1 else ''}; there must be as many marks as images."
        )


def _check_turn(turn, position: int, here: str) -> None:
    role = turn.get("from") if isinstance(turn, dict) else None
    if not isinstance(role, str) or role not in ROLES:
        raise UserError(f"{here}: `from` is {_shown.repr(role)}, but must be `human` or `gpt`.")
    if role != ("human", "gpt")[position % 2]:
        raise UserError(f"{here}: it is {role}'s turn twice; human and gpt must alternate.")
    value = turn.get("value")
    if not isinstance(value, str):
        raise UserError(f"{here}: `value` is {_shown.repr(value)}, but must be text.")
    if VIDEO_MARK in value:
        raise UserError(
            f"{here}: `value` has a `{VIDEO_MARK}` mark, but there are no videos; write it in "
            "another way."
        )
    if not _is_unicode(value):
        raise UserError(
            f"{here}: `value` holds half of a surrogate pair, which is no character; correct it."
        )


def unfit(record: Mapping) -> str | None:
    """Why a checked record can't be trained on as it was meant; None when it can."""
    turns = record["conversations"]
    for owner, of_turn in ((record, ""), *((turn, " of a turn") for turn in turns)):
        keys = sorted(key for key, value in owner.items() if _changes(key, value))
        if keys:
            named = " and ".join(f"`{key}`" for key in keys)
            return f"{named}{of_turn} {'are' if len(keys) > 1 else 'is'} not read"
    for position, turn in enumerate(turns):
        if token := SPECIAL_TOKEN.search(turn["value"]):
            return f"the special token {token[0]} stands in its text"
        if not turn["value"].strip():
            return f"{'an answer' if position % 2 else 'a question'} is empty"
        if position % 2 and IMAGE_MARK in turn["value"]:
            return f"an `{IMAGE_MARK}` mark stands in an answer"
    return None


def unread(record: Mapping) -> set[str]:
    """The keys of a checked record that hold something and are not read."""
    return {
        key for key, value in record.items() if key not in RECORD_KEYS and value not in EMPTY
    } | {
        f"conversations[].{key}"
        for turn in record["conversations"]
        for key, value in turn.items()
        if key not in TURN_KEYS and value not in EMPTY
    }


def _changes(key: str, value) -> bool:
    return key in CHANGING and value not in CHANGING[key]


def leads_out(name: str) -> bool:
    """Whether the name of a picture leads out of the directory of pictures, or is none."""
    if name.isascii() and "/" not in name and "\0" not in name and name != "..":
        return False
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or "\0" in name or not _is_unicode(name)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
