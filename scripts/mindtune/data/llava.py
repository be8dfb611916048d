"""Reading llava_instruct_150k.json: one record at a time, and no record unchecked.

Blocks of whole records are cut out of the file and given to orjson. Where that fails, and
for files that are laid out unlike LLaVA-Instruct, a slower reader goes on, which knows what
to say about damage.
"""

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import orjson

from mindtune.errors import UserError

IMAGE_MARK = "<image>"
VIDEO_MARK = "<video>"  # to the training framework; it stops, as a record here has no videos
ROLES = {"human": "user", "gpt": "assistant"}
CHUNK = 1 << 20
LONGEST_BLOCK = 64 << 20
FIRST_KEY = re.compile(rb'(?:\xef\xbb\xbf)?\s*\[\s*\{\s*("(?:[^"\\]){1,64}")')


def read_records(path: str | Path) -> Iterator[dict]:
    """Yield the records of a JSON list, holding one block of them at a time.

    Raises
    ------
    UserError: the file is not JSON, not a list, or ends in the middle of a record.
    """
    path = Path(path)
    number = offset = 0
    try:
        with open(path, "rb") as handle:
            for records, end in _blocks(handle):
                for record in records:
                    if not isinstance(record, dict):
                        raise _no_object(path, number, record)
                    yield record
                    number += 1
                offset = end
            if offset is not None:
                handle.seek(offset)
                yield from _carefully(path, handle, number)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start} of a block).") from error


def _blocks(handle) -> Iterator[tuple[list, int | None]]:
    """Yield (records, where the next begin), as long as they can be cut out and decoded.

    A block ends before `}, {` and the key with which the first record begins. Text within a
    string can't look like that, as its quotation marks are escaped; and were it some
    object deeper down, the block would not decode. None is yielded with the last block.
    """
    block = handle.read(max(CHUNK, 64))
    begin = FIRST_KEY.match(block)
    if not begin:
        return
    key = begin[1]
    block = block[block.index(b"[") + 1 :]
    offset = handle.tell() - len(block)
    while True:
        more = handle.read(max(CHUNK, len(block)))
        if not more:
            if records := _decode(b"[" + block):
                yield records, None
            return
        # What is read ahead tells the last block from the others.
        cut = _last_cut(block, key)
        if cut:
            if not (records := _decode(b"[" + block[:cut] + b"]")):
                return
            offset += cut + 1
            yield records, offset
            block = block[cut + 1 :]
        elif len(block) > LONGEST_BLOCK:
            return
        block += more


def _decode(text: bytes) -> list | None:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _last_cut(block: bytes, key: bytes) -> int:
    """Where the comma before the last `{key` is; 0 when there is none."""
    end = len(block)
    while (end := block.rfind(key, 0, end)) > 0:
        start = max(0, end - 256)
        before = block[start:end].rstrip()
        if before.endswith(b"{"):
            before = before[:-1].rstrip()
            if before.endswith(b",") and before[:-1].rstrip().endswith(b"}"):
                return start + len(before) - 1
    return 0


def _carefully(path: Path, binary, number: int) -> Iterator[dict]:
    """Yield the records from here on, decoded one by one, and say what is wrong."""
    handle = io.TextIOWrapper(binary, encoding="utf-8")
    decoder = json.JSONDecoder()
    position = 0
    first = number
    if number:
        text = ""
    else:
        text = handle.read(CHUNK)
        while text and not text.strip("\ufeff \t\r\n"):
            text = handle.read(CHUNK)
        text = text.lstrip("\ufeff \t\r\n")
        if not text.startswith("["):
            raise UserError(
                f"{path} must be a JSON list of records, but begins with {text[:20]!r}."
            )
        position = 1
    while True:
        position, text, found = _next_token(handle, text, position)
        if found == "]":
            position, text, found = _next_token(handle, text, position + 1)
            if found:
                raise UserError(
                    f"{path}: text follows the end of the list after record {number - 1} "
                    f"({text[position : position + 20]!r}); get the file again."
                )
            return
        if found == "," and number > first:
            position, text, found = _next_token(handle, text, position + 1)
            if found == "]":
                raise UserError(
                    f"{path}: there is a comma and no record after record {number - 1}; remove it, "
                    "or get the whole file again."
                )
        elif number > first and found:
            raise UserError(f"{path}: there is no comma between records {number - 1} and {number}.")
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
            except RecursionError:
                raise UserError(f"{path}: record {number} is nested too deeply.") from None
        if not isinstance(record, dict):
            raise _no_object(path, number, record)
        yield record
        number += 1


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


def _no_object(path: Path, number: int, record) -> UserError:
    return UserError(f"{path}: record {number} is {type(record).__name__}, but must be an object.")


def _broken(path: Path, number: int, error: json.JSONDecodeError) -> UserError:
    at_end = error.pos >= len(error.doc.rstrip()) - 1 or error.msg.startswith("Unterminated")
    if at_end:
        return UserError(f"{path} is cut off in record {number}; get the whole file again.")
    near = error.doc[max(0, error.pos - 20) : error.pos + 20]
    return UserError(f"{path}: record {number} is not JSON ({error.msg} near {near!r}).")


def images_of(record: dict) -> Sequence[str]:
    """The names of a record's pictures: none, one (a text), or several (a list of texts)."""
    image = record.get("image")
    if not image:
        return ()
    return (image,) if isinstance(image, str) else image


def check_record(record: dict, number: int) -> None:
    """Refuse a record on which the training framework would stop in mid-course.

    Raises
    ------
    UserError: an unknown role, turns that don't alternate, an odd number of turns, a turn
        that is no text, an image that is no name within the directory of pictures, or
        another number of `<image>` marks than of images.
    """
    here = f"record {number} (id {record.get('id', 'missing')!r})"
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise UserError(f"{here} has no `conversations`; it must have a list of turns.")
    for position, turn in enumerate(turns):
        role = turn.get("from") if isinstance(turn, dict) else None
        if not isinstance(role, str) or role not in ROLES:
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
        if VIDEO_MARK in turn["value"]:
            raise UserError(
                f"{here}, turn {position}: `value` has a `{VIDEO_MARK}` mark, but there are no videos; "
                "write it in another way."
            )
        if not _is_unicode(turn["value"]):
            raise UserError(
                f"{here}, turn {position}: `value` holds half of a surrogate pair, which is no "
                "character; mend it."
            )
    if len(turns) % 2:
        raise UserError(
            f"{here} has {len(turns)} turns, an odd number: its last question has no answer."
        )
    images = images_of(record)
    if not isinstance(images, (list, tuple)) or not all(
        isinstance(name, str) and name for name in images
    ):
        raise UserError(
            f"{here}: `image` is {record['image']!r}, but must be a file name, or a list of them."
        )
    for name in images:
        if leads_out(name):
            raise UserError(
                f"{here}: `image` is {name!r}, but must be a file name within the directory of "
                "pictures."
            )
    marks = sum(turn["value"].count(IMAGE_MARK) for turn in turns)
    if marks != len(images):
        raise UserError(
            f"{here} has {marks} `{IMAGE_MARK}` marks, but {len(images)} "
            f"image{'s' if len(images) > 1 else ''}; there must be as many marks as images."
        )


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
