"""Reading a JSON list of records, or JSON lines, one at a time; what records hold is their form's.

Which of the two a file is, its first character says, `[` or `{`. Blocks of whole records are cut out of the file and given to orjson. Where that fails, and
for files that are laid out unlike LLaVA-Instruct, a slower reader goes on, which knows what
to say about damage.
"""

import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from mindtune.errors import UserError
from mindtune.files import regular

CHUNK = 1 << 20
LONGEST_BLOCK = 64 << 20
MOST_DIGITS = 4300  # Python's own limit
# Ways to count the keys of a text: never too few, but some strings look like one; quickest first.
KEYS = (re.compile(rb':(?<=[\s"]:)'), re.compile(rb'"\s*:'))
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what surrogateescape makes of such bytes
FIRST_OBJECT = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{")
FIRST_KEY = re.compile(rb'(?:\xef\xbb\xbf)?\s*\[\s*\{\s*("(?:[^"\\]){1,64}")')


def read_records(path: str | Path) -> Iterator[dict]:
    """Yield the records of a JSON list or of JSON lines, holding one block of them at a time.

    Raises
    ------
    UserError: it is no file or not UTF-8, not JSON (NaN, and a key that an object has twice,
        are none), neither a list nor lines, or ends in the middle of a record.
    """
    path = regular(path)
    number = offset = 0
    try:
        with open(path, "rb") as handle:
            if FIRST_OBJECT.match(handle.read(max(CHUNK, 64))):
                handle.seek(0)
                yield from _lines(path, handle)
                return
            handle.seek(0)
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
    """The records of a text; None when it is not JSON, or an object has a key twice."""
    try:
        records = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    # orjson takes the last of two equal keys without a word, so keys are counted: at least as
    # many are found in the text as it has, and no more among the records.
    try:
        if len(KEYS[0].findall(text)) == _keys_above(records):
            return records
        if len(KEYS[1].findall(text)) == _keys(records) or not _repeats(text):
            return records
    except RecursionError:
        pass
    return None


def _keys_above(records: list) -> int:
    """How many keys records have, and the objects in their lists; not what is deeper."""
    count = 0
    for record in records:
        if type(record) is dict:
            count += len(record)
            for value in record.values():
                if type(value) is list:
                    count += _keys_of(value)
    return count


def _keys_of(objects: list) -> int:
    try:
        return sum(map(dict.__len__, objects))
    except TypeError:  # not objects alone: `_keys` counts what is in them
        return 0


def _keys(value: Any) -> int:
    """How many keys the objects of a JSON value have."""
    if type(value) is dict:
        return len(value) + sum(map(_keys, value.values()))
    return sum(map(_keys, value)) if type(value) is list else 0


def _repeats(text: bytes) -> bool:
    """Whether an object has a key twice."""
    try:
        json.loads(text, object_pairs_hook=_object)
    except _Refused:
        return True
    except (ValueError, RecursionError):
        return True  # the slower reader says what it is
    return False


class _Refused(Exception):
    """What Python's reader takes, and JSON or this project doesn't; what a record has."""


def _object(pairs: list[tuple[str, Any]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Refused(f"has the key {twice!r} twice in one object; remove one")
    return found


def _constant(name: str) -> None:
    raise _Refused(f"holds {name}, which is no number in JSON; write a number, or null")


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise _Refused(
            f"holds a number of {len(digits)} digits; write it as text, in quotation marks"
        )
    return int(digits)


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise _Refused(f"holds the number {text[:40]}, which is too large; write a smaller one")
    return number


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


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_float
    )


def _carefully(path: Path, binary, number: int) -> Iterator[dict]:
    """Yield the records from here on, decoded one by one, and say what is wrong."""
    handle = io.TextIOWrapper(binary, encoding="utf-8", errors="surrogateescape")
    decoder = _decoder()
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
            raise _no_list(path, text)
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
            begin = position
            try:
                record, position = decoder.raw_decode(text, begin)
                break
            except json.JSONDecodeError as error:
                more = handle.read(CHUNK)
                if not more:
                    raise _broken(path, f"record {number}", error) from None
                text, position = text[begin:] + more, 0
            except RecursionError:
                raise UserError(f"{path}: record {number} is nested too deeply.") from None
            except _Refused as error:
                raise UserError(f"{path}: record {number} {error}.") from None
        _refuse_bytes(path, f"record {number}", text, begin, position)
        if not isinstance(record, dict):
            raise _no_object(path, number, record)
        yield record
        number += 1


def _lines(path: Path, handle) -> Iterator[dict]:
    """Yield the record of each line that isn't blank. Only a line feed ends a line."""
    number = begin = 0  # of records; of lines
    while lines := handle.readlines(CHUNK):
        if not begin:
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        filled = [line for line in lines if line.strip()]
        records = _decode(b"[" + b",".join(filled) + b"]")
        if records is None or len(records) != len(filled):
            records = _line_by_line(path, lines, number, begin)
        for record in records:
            if not isinstance(record, dict):
                raise _no_object(path, number, record)
            yield record
            number += 1
        begin += len(lines)


def _line_by_line(path: Path, lines: list[bytes], number: int, begin: int) -> Iterator[Any]:
    """Yield the values of lines, and say what is wrong; `number`, `begin`: of the first."""
    decoder = _decoder()
    for place, line in enumerate(lines, begin + 1):
        text = line.decode("utf-8", "surrogateescape").strip(" \t\r\n")
        if not text:
            continue
        where = f"record {number} (line {place})"
        _refuse_bytes(path, where, text, 0, len(text))
        try:
            yield decoder.decode(text)
        except json.JSONDecodeError as error:
            if number == 0 and text[-1] in "{[,":
                raise UserError(
                    f"{path} begins with an object that doesn't end in its line; write a JSON list of "
                    "records, or each record in a line of its own."
                ) from None
            raise _broken(path, where, error) from None
        except RecursionError:
            raise UserError(f"{path}: {where} is nested too deeply.") from None
        except _Refused as error:
            raise UserError(f"{path}: {where} {error}.") from None
        number += 1


def _refuse_bytes(path: Path, where: str, text: str, begin: int, end: int) -> None:
    """Refuse a stretch of text in which there are bytes that are not UTF-8."""
    if wrong := NOT_UTF8.search(text, begin, end):
        near = text[max(begin, wrong.start() - 20) : wrong.start() + 20]
        shown = near.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        raise UserError(
            f"{path} is not UTF-8 text: {where} has the byte 0x{ord(wrong[0]) - 0xDC00:02x} in "
            f"{shown!r}; save the file as UTF-8."
        )


def _no_list(path: Path, text: str) -> UserError:
    if not text:
        return UserError(
            f"{path} is empty, but must be a JSON list of records, or JSON lines; get it again."
        )
    _refuse_bytes(path, "its beginning", text, 0, 20)
    return UserError(
        f"{path} must be a JSON list of records, or JSON lines, but begins with {text[:20]!r}."
    )


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


def _broken(path: Path, where: str, error: json.JSONDecodeError) -> UserError:
    at_end = error.pos >= len(error.doc.rstrip()) - 1 or error.msg.startswith("Unterminated")
    if at_end:
        return UserError(f"{path} is cut off in {where}; get the whole file again.")
    begin, end = max(0, error.pos - 20), error.pos + 20
    _refuse_bytes(path, where, error.doc, begin, end)
    return UserError(f"{path}: {where} is not JSON ({error.msg} near {error.doc[begin:end]!r}).")
