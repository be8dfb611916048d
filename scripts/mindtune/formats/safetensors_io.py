"""Reading and writing safetensors files without loading them.

Format (huggingface/safetensors, README): 8 bytes little-endian length of the header; the
header, a JSON object of `{"name": {"dtype", "shape", "data_offsets": [begin, end]}}` and
optionally `__metadata__`; then the tensors' bytes, without gaps, offsets counting from
the end of the header.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mindtune.errors import UserError
from mindtune.formats.sources import FileSource
from mindtune.formats.views import ITEM_BYTES, View, stored

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_LARGEST_HEADER = 100_000_000  # the format's own limit


def open_safetensors(path: str | Path) -> tuple[FileSource, dict[str, View]]:
    """The open file and a view of each of its tensors; UserError if anything in it is wrong."""
    file = FileSource(path)
    try:
        return file, _views(file)
    except BaseException:
        file.close()
        raise


def _views(file: FileSource) -> dict[str, View]:
    def damaged(what: str) -> UserError:
        return UserError(f"{file.path} is truncated, damaged or not a safetensors file: {what}")

    if file.size < 8:
        raise damaged(f"it has {file.size} bytes")
    prefix = memoryview(bytearray(8))
    file.read_into(prefix, 0)
    length = int.from_bytes(prefix, "little")
    if length > min(_LARGEST_HEADER, file.size - 8):
        raise damaged(f"a header of {length} bytes does not fit a file of {file.size}")
    raw = memoryview(bytearray(length))
    file.read_into(raw, 8)
    try:
        header = json.loads(bytes(raw).decode("utf-8"), object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise damaged(f"its header cannot be read ({error})") from None
    if not isinstance(header, dict):
        raise damaged("its header is not an object")
    header.pop("__metadata__", None)
    views, extents = {}, []
    for name, entry in header.items():
        dtype, shape, begin, end = _entry(name, entry, damaged)
        size = math.prod(shape) * ITEM_BYTES[dtype]
        if end - begin != size:
            raise damaged(f"{name} has {end - begin} bytes, its shape needs {size}")
        views[name] = stored(file, 8 + length + begin, shape, dtype)
        extents.append((begin, end))
    position = 0
    for begin, end in sorted(extents):
        if begin != position:
            raise damaged(f"its tensors leave a gap or overlap at byte {position}")
        position = end
    if 8 + length + position != file.size:
        raise damaged(f"its tensors end at byte {8 + length + position}, the file at {file.size}")
    return views


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice in it")
    return result


def _entry(name: str, entry: Any, damaged: Any) -> tuple[str, tuple[int, ...], int, int]:
    match entry:
        case {"dtype": str() as code, "shape": list() as shape, "data_offsets": [begin, end]}:
            numbers = [*shape, begin, end]
            if all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
                if code not in _DTYPES:
                    raise UserError(f"{name} has dtype {code}, which is not supported")
                return _DTYPES[code], tuple(shape), begin, end
    raise damaged(f"the entry of {name} is malformed")


def safetensors_header(
    tensors: Mapping[str, View], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, dict[str, int]]:
    """The length prefix and header of a file of `tensors`, and the file offset of each tensor."""
    header: dict[str, Any] = {"__metadata__": dict(metadata or {"format": "pt"})}
    begins, position = {}, 0
    for name, view in tensors.items():
        begins[name] = position
        header[name] = {
            "dtype": _CODES[view.dtype],
            "shape": list(view.shape),
            "data_offsets": [position, position + view.nbytes],
        }
        position += view.nbytes
    data = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    data += b" " * (-len(data) % 8)
    prefix = len(data).to_bytes(8, "little") + data
    return prefix, {name: len(prefix) + begin for name, begin in begins.items()}
