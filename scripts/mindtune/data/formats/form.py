"""What the forms of instructions have in common: turns of texts with marks, and pictures' names.

A record on which the training framework would stop is refused by `Form.check`. One that it would
take, but not as its writer meant it, has a reason to be left out, `Form.unfit`. Keys that are not
read are named.
"""

import reprlib
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from mindtune.data.conversation import (
    IMAGE_MARK,
    VIDEO_MARK,
    is_address,
    is_unicode,
    leads_out,
    one_name,
)
from mindtune.errors import UserError
from mindtune.models.conversation import SPECIAL_TOKEN

SYSTEM = "system"  # the role of a turn, and the key of a record
# Keys that change what a record means where they are not read, and the values with which they don't.
EMPTY = (None, "", [], {})
CHANGING = (
    dict.fromkeys(
        (
            "image", "images", "video", "videos", "audio", "audios", "system", "system_prompt",
            "tools", "functions", "tool_calls", "function_call", "conversations", "messages",
            "history", "objects", "chosen", "rejected", "rejected_response",
        ),
        EMPTY,
    )
    | dict.fromkeys(("weight", "weights", "loss", "loss_weight", "loss_scale", "train"), (*EMPTY, 1))
    | dict.fromkeys(("mask",), (*EMPTY, 0))
)  # fmt: skip
VIDEO_KEYS = ("video", "videos")
# Values for a sentence, cut where they are long or deep.
_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 80
shown = _shown.repr


class Conversation(NamedTuple):
    """A record as it is trained on.

    images: names within the directory of pictures, one for each mark. values: a question, its
    answer, and so on. system: what the conversation is to be held under; None: the template's own.
    """

    images: Sequence[str]
    values: Sequence[str]
    system: str | None = None


class Unfit(Exception):
    """Why a record can't be trained on as it was meant."""


class Form:
    """A form of instructions: a list of turns with a role and a text each, and pictures.

    Parameters
    ----------
    name: for logs and reports. shape: a record, as a sentence shows it. images, turns: keys of a
        record. role, value: keys of a turn. user, assistant: the roles. tools: roles that are known
        to other programs and can't be trained on here.
    """

    def __init__(
        self,
        name: str,
        shape: str,
        *,
        images: str,
        turns: str,
        role: str,
        value: str,
        user: str,
        assistant: str,
        tools: Sequence[str] = (),
    ) -> None:
        self.name, self.shape = name, shape
        self.images, self.turns, self.role, self.value = images, turns, role, value
        self.roles, self.tools = (user, assistant), frozenset(tools)
        self.of_role, self.of_value = itemgetter(role), itemgetter(value)
        self.alternating = {n: [user, assistant] * (n // 2) for n in range(2, 201, 2)}
        self.plain_keys = frozenset(("id", images, turns))
        self.record_keys = self.plain_keys | {SYSTEM}
        self.turn_keys = frozenset((role, value))
        self.changing = {key: CHANGING[key] for key in CHANGING.keys() - self.record_keys}

    def claims(self, record: Mapping) -> bool:
        """Whether a record may be of this form: by its keys, and those of its first turn."""
        turns = record.get(self.turns)
        other = "image" if self.images == "images" else "images"
        return (
            isinstance(turns, list)
            and bool(turns)
            and isinstance(turns[0], dict)
            and self.role in turns[0]
            and bool(record.get(self.images) or not record.get(other))
        )

    def images_of(self, record: Mapping) -> Sequence[str]:
        """The names of a record's pictures: none, one (a text), or several (a list of texts)."""
        image = record.get(self.images)
        if not image:
            return ()
        if isinstance(image, str):
            return (one_name(image),) if "/" in image else (image,)
        if isinstance(image, list):
            if len(image) == 1 and isinstance(image[0], str) and image[0]:
                return (one_name(image[0]),)
            return [one_name(name) if isinstance(name, str) else name for name in image]
        return image

    def sound_values(self, record: Mapping, images: Sequence[str]) -> list[str] | None:
        """The texts of a record's turns, or None when the record should be looked at closely.

        A short way for the many records about which there is nothing to say.
        """
        try:
            turns = record[self.turns]
            values = list(map(self.of_value, turns))
            text = "".join(values)
            sound = (
                list(map(self.of_role, turns)) == self.alternating.get(len(turns))
                and self.plain_keys.issuperset(record)
                and max(map(len, turns)) == len(self.turn_keys)
                and all(map(str.strip, values))
                and type(images) is tuple
                and values[0].count(IMAGE_MARK) == len(images)
                and text.count("<") == len(images)  # no other mark, and no special token
            )
        except (KeyError, TypeError, ValueError):
            return None
        return values if sound else None

    def read(self, record: Mapping, number: int, roots: Sequence[str] = ()) -> Conversation:
        """A record that is looked at closely.

        roots: names of the directory of pictures, which pictures' own names may begin with.

        Raises
        ------
        UserError: see `check`. Unfit: see `unfit`.
        """
        if reason := self.foreign(record):
            raise Unfit(reason)
        record = self.plain(record, _place(record, number))
        record = self._within(record, roots)
        self.check(record, number)
        if reason := self.unfit(record):
            raise Unfit(reason)
        system, turns = self._split(record)
        return Conversation(self.images_of(record), list(map(self.of_value, turns)), system or None)

    def plain(self, record: Mapping, here: str) -> Mapping:
        """The record with a text for each turn, and the names of its pictures in one list.

        Raises
        ------
        UserError: something has another shape. Unfit: it holds what can't be trained on.
        """
        return record

    def foreign(self, record: Mapping) -> str | None:
        """Why a record, checked or not, is of a kind that is not trained on here; or None."""
        keys = [key for key in VIDEO_KEYS if record.get(key)]
        if keys:
            return f"it is about a video (`{keys[0]}`), which is not read"
        turns = record.get(self.turns)
        for position, turn in enumerate(turns if isinstance(turns, list) else ()):
            role = turn.get(self.role) if isinstance(turn, dict) else None
            if position and role == SYSTEM:
                return "a system turn stands within its conversation"
            if isinstance(role, str) and role in self.tools:
                return f"it has a turn of `{role}`"
        return None

    def check(self, record: Mapping, number: int) -> None:
        """Refuse a record on which the training framework would stop in mid-course.

        Raises
        ------
        UserError: an unknown role, turns that don't alternate, an odd number of turns, a turn
            that is no text, an image that is no name within the directory of pictures, another
            number of `<image>` marks than of images, or two system texts.
        """
        here = _place(record, number)
        turns = record.get(self.turns)
        if not isinstance(turns, list) or not turns:
            raise UserError(f"{here} has no `{self.turns}`; it must have a list of turns.")
        self._check_system(record, here)
        skipped = len(turns) - len(self._split(record)[1])
        for position, turn in enumerate(turns[skipped:]):
            self._check_turn(turn, position, f"{here}, turn {position + skipped}")
        turns = turns[skipped:]
        if len(turns) % 2 or not turns:
            raise UserError(
                f"{here} has {len(turns)} turns, an odd number: its last question has no answer."
                if turns
                else f"{here} has a system turn and no other; write a question and an answer."
            )
        self._check_images(record, turns, here)

    def _check_images(self, record: Mapping, turns: Sequence[Mapping], here: str) -> None:
        images = self.images_of(record)
        if not isinstance(images, (list, tuple)) or not all(
            isinstance(name, str) and name for name in images
        ):
            raise UserError(
                f"{here}: `{self.images}` is {shown(record[self.images])}, but must be a file name, "
                "or a list of them."
            )
        for name in images:
            if is_address(name):
                raise UserError(
                    f"{here}: `{self.images}` is {shown(name)}, an address or a picture's own data; "
                    "put the picture into the directory of pictures and write its file name."
                )
            if leads_out(name):
                raise UserError(
                    f"{here}: `{self.images}` is {shown(name)}, but must be a file name within the "
                    "directory of pictures."
                )
        marks = sum(turn[self.value].count(IMAGE_MARK) for turn in turns)
        if marks != len(images):
            raise UserError(
                f"{here} has {marks} `{IMAGE_MARK}` marks, but {len(images)} "
                f"image{'s' if len(images) > 1 else ''}; there must be as many marks as images."
            )

    def _check_turn(self, turn, position: int, here: str) -> None:
        user, assistant = self.roles
        role = turn.get(self.role) if isinstance(turn, dict) else None
        if role not in self.roles:
            raise UserError(
                f"{here}: `{self.role}` is {shown(role)}, but must be `{user}` or `{assistant}`."
            )
        if role != self.roles[position % 2]:
            raise UserError(
                f"{here}: it is {role}'s turn twice; {user} and {assistant} must alternate."
            )
        self._check_text(turn.get(self.value), f"{here}: `{self.value}`")

    def _check_text(self, value, here: str) -> None:
        if not isinstance(value, str):
            raise UserError(f"{here} is {shown(value)}, but must be text.")
        if VIDEO_MARK in value:
            raise UserError(
                f"{here} has a `{VIDEO_MARK}` mark, but there are no videos; write it in another way."
            )
        if not is_unicode(value):
            raise UserError(
                f"{here} holds half of a surrogate pair, which is no character; correct it."
            )

    def _check_system(self, record: Mapping, here: str) -> None:
        first = record[self.turns][0]
        in_turn = isinstance(first, dict) and first.get(self.role) == SYSTEM
        if in_turn:
            self._check_text(first.get(self.value), f"{here}, turn 0: `{self.value}`")
        key = record.get(SYSTEM)
        if key not in EMPTY:
            self._check_text(key, f"{here}: `{SYSTEM}`")
            if in_turn and first[self.value] not in ("", key):
                raise UserError(
                    f"{here} has a system text in `{SYSTEM}` and another one in its first turn; keep "
                    "one."
                )

    def _split(self, record: Mapping) -> tuple[str | None, Sequence[Mapping]]:
        """The system text of a record, if it has one, and the other turns."""
        turns = record[self.turns]
        first = turns[0]
        if isinstance(first, dict) and first.get(self.role) == SYSTEM:
            return first.get(self.value) or record.get(SYSTEM), turns[1:]
        return record.get(SYSTEM), turns

    def unfit(self, record: Mapping) -> str | None:
        """Why a checked record can't be trained on as it was meant; None when it can."""
        every = record[self.turns]
        for owner, changing, of_turn in (
            (record, self.changing, ""),
            *((turn, CHANGING, " of a turn") for turn in every),
        ):
            keys = sorted(
                key
                for key, value in owner.items()
                if key in changing and value not in changing[key]
            )
            if keys:
                named = " and ".join(f"`{key}`" for key in keys)
                return f"{named}{of_turn} {'are' if len(keys) > 1 else 'is'} not read"
        system, turns = self._split(record)
        for position, turn in enumerate(turns):
            if token := SPECIAL_TOKEN.search(turn[self.value]):
                return f"the special token {token[0]} is in its text"
            if not turn[self.value].strip():
                return f"{'an answer' if position % 2 else 'a question'} is empty"
            if position % 2 and IMAGE_MARK in turn[self.value]:
                return f"an `{IMAGE_MARK}` mark is in an answer"
        if system and (token := SPECIAL_TOKEN.search(system)):
            return f"the special token {token[0]} is in its system text"
        if system and IMAGE_MARK in system:
            return f"an `{IMAGE_MARK}` mark is in its system text"
        return None

    def unread(self, record: Mapping) -> set[str]:
        """The keys of a record that hold something and are not read."""
        turns = record.get(self.turns)
        return {
            key
            for key, value in record.items()
            if key not in self.record_keys and value not in EMPTY
        } | {
            f"{self.turns}[].{key}"
            for turn in (turns if isinstance(turns, list) else ())
            if isinstance(turn, dict)
            for key, value in turn.items()
            if key not in self.turn_keys and value not in EMPTY
        }

    def _within(self, record: Mapping, roots: Sequence[str]) -> Mapping:
        """The record with names relative to the directory of pictures, where they begin with it."""
        image = record.get(self.images)
        names = [image] if isinstance(image, str) else image
        if not isinstance(names, list) or not any(
            isinstance(name, str) and name.startswith("/") for name in names
        ):
            return record
        return {**record, self.images: [_relative(name, roots) for name in names]}


def _relative(name: Any, roots: Sequence[str]) -> Any:
    if isinstance(name, str):
        for root in roots:
            if name.startswith(f"{root}/"):
                return name[len(root) :].lstrip("/")
    return name


def _place(record: Mapping, number: int) -> str:
    named = f" (id {shown(record['id'])})" if "id" in record else ""
    return f"record {number}{named}"
