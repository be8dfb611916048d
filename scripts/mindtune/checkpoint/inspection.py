"""A table of what a checkpoint directory holds, of either form."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindtune.checkpoint.megatron import (
    RANK_FILE,
    MMCheckpoint,
    iteration_directory,
    rank_directories,
)
from mindtune.checkpoint.verification import is_megatron
from mindtune.errors import UserError
from mindtune.formats.safetensors_io import open_safetensors
from mindtune.formats.torch_zip import TorchFile
from mindtune.formats.unpickle import Placeholder, StoredTensor
from mindtune.formats.views import View

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of one file: where (rank directory or shard), name, shape, dtype, bytes."""

    place: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """What `inspect` found; `str()` of it is the table.

    iteration: "release", a number, or "" for a Hugging Face directory; layout: one line, or ""
    where it cannot be told (LoRA, Hugging Face); others: what else the rank files hold.
    """

    path: Path
    iteration: str
    layout: str
    files: dict[str, int]  # place -> bytes of the file
    tensors: list[Tensor]
    others: list[str]

    def __str__(self) -> str:
        lines = [f"{self.path}"]
        if self.iteration:
            lines.append(f"iteration {self.iteration}")
        if self.layout:
            lines.append(self.layout)
        if self.others:
            lines.append(f"beside the model: {', '.join(self.others)}")
        rows = [("file", "tensors", "tensor bytes", "file bytes")]
        for place, size in self.files.items():
            held = [t for t in self.tensors if t.place == place]
            total = sum(t.nbytes for t in held)
            rows.append((place, str(len(held)), f"{total:,}", f"{size:,}"))
        total = sum(t.nbytes for t in self.tensors)
        sizes = sum(self.files.values())
        rows.append(("all", str(len(self.tensors)), f"{total:,}", f"{sizes:,}"))
        lines += ["", *_table(rows, right={1, 2, 3})]
        rows = [("tensor", "in", "count", "shape", "dtype", "bytes each")]
        rows += _rows(self.tensors)
        return "\n".join([*lines, "", *_table(rows, right={2, 5})])


def _rows(tensors: Iterable[Tensor]) -> list[tuple[str, ...]]:
    """A row for each tensor; those that differ only by layer number or file share one."""
    by_file: dict[tuple, list[int]] = {}
    for t in tensors:
        numbers = [int(n) for n in _NUMBER.findall(t.name)[:1]]
        name = _NUMBER.sub("{}", t.name, count=1)
        by_file.setdefault((name, t.shape, t.dtype, t.nbytes, t.place), []).extend(numbers or [-1])
    places: dict[tuple, list[str]] = {}
    for (*what, place), layers in by_file.items():
        places.setdefault((*what, tuple(layers)), []).append(place)
    rows = []
    for (name, shape, dtype, nbytes, layers), files in places.items():
        first, last = min(layers), max(layers)
        shown = name.replace("{}", str(first) if first == last else f"{{{first}..{last}}}")
        where = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
        rows.append((shown, where, str(len(layers)), str(list(shape)), dtype, f"{nbytes:,}"))
    return rows


def _table(rows: list[tuple[str, ...]], right: set[int]) -> list[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            text.rjust(width) if n in right else text.ljust(width)
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def inspect(directory: str | Path, *, iteration: int | str | None = None) -> Inspection:
    """List a Megatron or a Hugging Face directory; nothing but headers is read.

    Raises UserError if it is neither, or is incomplete or damaged.
    """
    path = Path(directory)
    if not path.is_dir():
        raise UserError(f"{path} is not a directory")
    if is_megatron(path) or iteration is not None:
        return _inspect_megatron(path, iteration)
    shards = sorted(path.glob("*.safetensors"))
    if not shards:
        raise UserError(f"{path} has neither a tracker file nor *.safetensors: no checkpoint")
    tensors = []
    for shard in shards:
        file, views = open_safetensors(shard)
        file.close()
        tensors += [_tensor(shard.name, name, view) for name, view in views.items()]
    return Inspection(path, "", "", {s.name: s.stat().st_size for s in shards}, tensors, [])


def _tensor(place: str, name: str, view: View) -> Tensor:
    return Tensor(place, name, view.shape, view.dtype, view.nbytes)


def _inspect_megatron(path: Path, iteration: int | str | None) -> Inspection:
    home = iteration_directory(path, iteration)
    tensors: list[Tensor] = []
    files: dict[str, int] = {}
    others: dict[str, None] = {}
    for rank in sorted(rank_directories(home).values()):
        file = TorchFile(rank / RANK_FILE)
        files[rank.name] = file.file.size
        try:
            tree = file.tree if isinstance(file.tree, dict) else {}
            for key, model in tree.items():
                if str(key).startswith("model") and isinstance(model, dict):
                    prefix = "" if key == "model" else f"{key}: "
                    for name, tensor in model.items():
                        if isinstance(tensor, StoredTensor):
                            view = file.view(tensor, str(name))
                            tensors.append(_tensor(rank.name, f"{prefix}{name}", view))
                else:
                    others[_other(key, model)] = None
        finally:
            file.close()
    with MMCheckpoint(path, iteration) as mm:
        layout = "LoRA adapters only" if mm.is_lora else mm.layout.describe()
    name = "release" if home.name == "release" else str(int(home.name.removeprefix("iter_")))
    return Inspection(path, name, layout, files, tensors, list(others))


def _other(key: Any, value: Any) -> str:
    if isinstance(value, int | float | str) or value is None:
        return f"{key} {value}"
    return f"{key} ({value!r})" if isinstance(value, Placeholder) else str(key)
