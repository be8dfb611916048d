"""Reading the pickle of a torch file without running any code that it names.

A pickle is a program; its `GLOBAL` and `REDUCE` instructions import and call. Here the only
things it can reach are the harmless constructors below (plain containers, and the marks
torch leaves for tensors). Everything else it names becomes a `Placeholder`: an inert object
that remembers the name, the arguments and the state, so that a trained checkpoint's
`args` can still be looked at.

Format: torch/serialization.py (persistent ids are `("storage", storage class, key,
location, number of elements)`) and torch/_utils.py (`_rebuild_tensor_v2`), torch 2.1 to 2.13.
"""

import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from mindtune.errors import UserError

STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}


@dataclass(frozen=True, slots=True)
class Storage:
    """A torch storage: the record `data/<key>` holding `count` elements of `dtype`."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a storage; `offset` and `strides` count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Placeholder:
    """Stands for an object of a class that is not loaded; it has no behaviour."""

    name = "?"

    def __new__(cls, *arguments: Any, **keywords: Any) -> "Placeholder":
        self = super().__new__(cls)
        self.arguments = arguments
        self.keywords = keywords
        self.state = None
        self.items = []
        return self

    def __init__(self, *arguments: Any, **keywords: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        """Keep an element of a list-like object."""
        self.items.append(item)

    def extend(self, items: Any) -> None:
        """Keep elements of a list-like object."""
        self.items.extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def __call__(self, *arguments: Any, **keywords: Any) -> "Placeholder":
        return _placeholder(f"{self.name}()")(*arguments, **keywords)

    def __repr__(self) -> str:
        return f"<{self.name}, not loaded>"


def _placeholder(name: str) -> type[Placeholder]:
    return type("Placeholder", (Placeholder,), {"name": name})


def _is_sizes(value: Any) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in value
    )


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StoredTensor:
    well_formed = (
        isinstance(storage, Storage)
        and _is_sizes((offset,))
        and _is_sizes(shape)
        and _is_sizes(strides)
        and len(shape) == len(strides)
    )
    if not well_formed:
        raise pickle.UnpicklingError("a tensor's description is malformed")
    return StoredTensor(storage, offset, shape, strides)


_CONSTRUCTORS = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch", "Size"): lambda sizes=(): tuple(sizes),
}


class _Constructor:
    """One of `_CONSTRUCTORS` for one use: what a pickle does to this object stays with it."""

    __slots__ = ("_key",)

    def __init__(self, key: tuple[str, str]):
        self._key = key

    def __call__(self, *arguments: Any) -> Any:
        return _CONSTRUCTORS[self._key](*arguments)


class _StorageClass(str):
    """The dtype a storage class stands for; cannot be called."""

    __slots__ = ()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict  # a type implemented in C: its attributes cannot be set
        if (module, name) in _CONSTRUCTORS:
            return _Constructor((module, name))
        if name in STORAGE_DTYPES and module in ("torch", "torch.storage"):
            return _StorageClass(STORAGE_DTYPES[name])
        return _placeholder(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Storage:
        match pid:
            case ("storage", _StorageClass() as dtype, str() as key, _, int() as count) if (
                count >= 0
            ):
                return Storage(key, str(dtype), count)
        raise pickle.UnpicklingError("a storage's description is malformed")


def unpickle(data: bytes, where: str) -> Any:
    """The object in a torch file's data.pkl, tensors as `StoredTensor`, strange things inert.

    Raises UserError, with `where` naming the file, if the pickle is broken.
    """
    try:
        return _Unpickler(io.BytesIO(data), encoding="utf-8").load()
    except RecursionError:
        raise UserError(f"{where} is damaged: its pickle is nested too deeply") from None
    except MemoryError:
        raise UserError(f"{where} is damaged: its pickle asks for too much memory") from None
    except Exception as error:  # a broken pickle can raise anything
        raise UserError(f"{where} is damaged: its pickle cannot be read ({error})") from None
