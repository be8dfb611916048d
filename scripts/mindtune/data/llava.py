"""Reading llava_instruct_150k.json: one record at a time, and no record unchecked."""

import json
from collections.abc import Iterator
from pathlib import Path

from mindtune.errors import UserError

IMAGE_MARK = "<image>"
ROLES = {"human": "user", "gpt": "assistant"}
CHUNK = 1 << 20


def read_records(path: str | Path) -> Iterator[dict]:
    """Yield the records of a JSON list, holding one at a time.

    Raises
    ------
    UserError: the file is not JSON, not a list, or ends in the middle of a record.
    """
    path = Path(path)
    decoder = json.JSONDecoder()
    try:
        with open(path, encoding="utf-8") as handle:
            text = handle.read(CHUNK).lstrip("\ufeff \t\r\n")
            if not text.startswith("["):
                raise UserError(
                    f"{path} must be a JSON list of records, but begins with {text[:20]!r}."
                )
            position, number = 1, 0
            while True:
                position, text, found = _next_token(handle, text, position)
                if found == "]":
                    return
                if found == "," and number:
                    position, text, found = _next_token(handle, text, position + 1)
                elif number and found:
                    raise UserError(
                        f"{path}: there is no comma between records {number - 1} and {number}."
                    )
                if not found:
                    raise UserError(f"{path} is cut off after {number} records; get it again.")
                while True:
                    try:
                        record, position = decoder.raw_decode(text, position)
                        break
                    except json.JSONDecodeError as error:
                        more = handle.read(CHUNK)
                        if not more:
                            raise _broken(path, number, error) from None
                        text, position = text[position:] + more, 0
                if not isinstance(record, dict):
                    raise UserError(
                        f"{path}: record {number} is {type(record).__name__}, "
                        "but must be an object."
                    )
                yield record
                number += 1
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start} of a block).") from error


def _next_token(handle, text: str, position: int) -> tuple[int, str, str]:
    """Skip white space; returns the position, the text it counts in, and the character there."""
    while True:
        while position < len(text) and text[position] in " \t\r\n":
            position += 1
        if position < len(text):
            return position, text, text[position]
        text, position = handle.read(CHUNK), 0
        if not text:
            return 0, "", ""


def _broken(path: Path, number: int, error: json.JSONDecodeError) -> UserError:
    at_end = error.pos >= len(error.doc.rstrip()) - 1 or error.msg.startswith("Unterminated")
    if at_end:
        return UserError(f"{path} is cut off in record {number}; get the whole file again.")
    near = error.doc[max(0, error.pos - 20) : error.pos + 20]
    return UserError(f"{path}: record {number} is not JSON ({error.msg} near {near!r}).")


def check_record(record: dict, number: int) -> None:
    """Refuse a record on which the training framework would stop in mid-course.

    Raises
    ------
    UserError: an unknown role, turns that don't alternate, an odd number of turns, a turn
        that is no text, or another number of `<image>` marks than of images.
    """
    here = f"record {number} (id {record.get('id', 'missing')!r})"
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise UserError(f"{here} has no `conversations`; it must have a list of turns.")
    for position, turn in enumerate(turns):
        role = turn.get("from") if isinstance(turn, dict) else None
        if role not in ROLES:
            raise UserError(
                f"{here}, turn {position}: `from` is {role!r}, but must be `human` or `gpt`."
            )
        if role != ("human", "gpt")[position % 2]:
            raise UserError(
                f"{here}, turn {position}: it is {role}'s turn twice; human and gpt must alternate."
            )
        if not isinstance(turn.get("value"), str):
            raise UserError(
                f"{here}, turn {position}: `value` is {turn.get('value')!r}, but must be text."
            )
    if len(turns) % 2:
        raise UserError(
            f"{here} has {len(turns)} turns, an odd number: its last question has no answer."
        )
    image = record.get("image")
    if image and not isinstance(image, str):
        raise UserError(f"{here}: `image` is {image!r}, but must be one file name.")
    marks = sum(turn["value"].count(IMAGE_MARK) for turn in turns)
    if marks != bool(image):
        raise UserError(
            f"{here} has {marks} `{IMAGE_MARK}` marks, but {int(bool(image))} image; there must be "
            "as many marks as images."
        )
