"""Writing the pickle of a torch file by hand, so that torch need not be imported.

The instructions are those `torch.save` produces at pickle protocol 2 for a dictionary of
plain tensors; `torch.load(weights_only=True)` accepts them. Source: Lib/pickletools.py for
the instructions, torch/_utils.py (`_rebuild_tensor_v2`) and torch/serialization.py
(`persistent_id`) for what is called with what.
"""

import math
import struct
from collections.abc import Mapping
from typing import Any

from mindtune.formats.unpickle import STORAGE_DTYPES
from mindtune.formats.views import View

_STORAGE_CLASSES = {
    dtype: name for name, dtype in STORAGE_DTYPES.items() if name != "UntypedStorage"
}


def pickle_tree(tree: object) -> tuple[bytes, list[View]]:
    """The pickle of `tree`, and its views in the order of their storage keys 0, 1, 2, ...

    `tree` may hold dictionaries, lists, tuples, strings, integers, floats, booleans, None and
    views (pickled as tensors with a storage each). Raises TypeError for anything else.
    """
    writer = _Writer()
    writer.put(tree)
    return b"\x80\x02" + b"".join(writer.out) + b".", writer.views


class _Writer:
    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.views: list[View] = []

    def put(self, value: Any) -> None:
        out = self.out.append
        match value:
            case None:
                out(b"N")
            case bool():
                out(b"\x88" if value else b"\x89")
            case int():
                self._put_int(value)
            case float():
                out(b"G" + struct.pack(">d", value))
            case str():
                data = value.encode("utf-8", "surrogatepass")
                out(b"X" + struct.pack("<I", len(data)) + data)
            case View():
                self._put_view(value)
            case Mapping():
                out(b"}")
                if value:
                    out(b"(")
                    for key, item in value.items():
                        self.put(key)
                        self.put(item)
                    out(b"u")
            case list():
                out(b"]")
                if value:
                    out(b"(")
                    for item in value:
                        self.put(item)
                    out(b"e")
            case tuple():
                out(b"(")
                for item in value:
                    self.put(item)
                out(b"t")
            case _:
                raise TypeError(f"a {type(value).__name__} cannot be written to a checkpoint")

    def _put_int(self, value: int) -> None:
        if -(1 << 31) <= value < 1 << 31:
            self.out.append(b"J" + struct.pack("<i", value))
        else:
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            if len(data) > 255:
                raise TypeError("an integer of more than 255 bytes cannot be written")
            self.out.append(b"\x8a" + bytes([len(data)]) + data)

    def _put_view(self, view: View) -> None:
        out = self.out.append
        strides = tuple(math.prod(view.shape[n + 1 :]) for n in range(len(view.shape)))
        out(b"ctorch._utils\n_rebuild_tensor_v2\n(")
        out(b"(")
        self.put("storage")
        out(b"ctorch\n" + _STORAGE_CLASSES[view.dtype].encode() + b"\n")
        self.put(str(len(self.views)))
        self.put("cpu")
        self.put(math.prod(view.shape))
        out(b"tQ")  # the tuple is a persistent id
        self.put(0)
        self.put(view.shape)
        self.put(strides)
        self.put(False)
        out(b"ccollections\nOrderedDict\n)R")
        out(b"tR")
        self.views.append(view)
