"""The way in and out for training in plain torch: whole models as torch tensors."""

import mmap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtune.checkpoint.huggingface import matched
from mindtune.checkpoint.layout import ParallelLayout
from mindtune.checkpoint.megatron import MMCheckpoint, iteration_name, track
from mindtune.checkpoint.reading import hf_views, mm_views
from mindtune.checkpoint.writing import rank_trees, sync_tree, target_directory, write_ranks
from mindtune.errors import UserError
from mindtune.formats.sources import FileSource, MemorySource, RecordSource
from mindtune.formats.streaming import Buffers, Progress, stream
from mindtune.formats.views import ITEM_BYTES, View, stored
from mindtune.models.shape import model_shape
from mindtune.models.tensors import hf_shapes, tensors_of

if TYPE_CHECKING:
    from torch import Tensor


def save_trained(
    save_dir: str | Path,
    iteration: int,
    hf_tensors: "Mapping[str, Tensor] | Callable[[str], Tensor]",
    config: dict[str, Any],
    *,
    extra: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a trained model as `save_dir/iter_NNNNNNN`, as Megatron does at one rank.

    `hf_tensors` gives every tensor by its published name (a tied model has no
    `lm_head.weight`; if one is there it is left out); `config` is config.json. The file
    holds `checkpoint_version`, `iteration`, `model` and the entries of `extra` (plain values,
    containers, torch tensors), and can be loaded with `torch.load(weights_only=True)`. The
    directory appears by rename and flushed to disk, and only then does the tracker name it.
    `progress(bytes done, bytes in all)` may raise to call it off. Returns the directory.
    """
    if not isinstance(iteration, int) or isinstance(iteration, bool) or iteration < 0:
        raise UserError(f"iteration is {iteration!r}; a whole number from 0 is needed")
    shape = model_shape(config)
    family = tensors_of(shape)
    if callable(hf_tensors):
        given = {name: hf_tensors(name) for name in hf_shapes(shape)}
    else:
        given = {family.published_name(name): tensor for name, tensor in hf_tensors.items()}
    views = {name: view_of_tensor(tensor) for name, tensor in given.items()}
    tensors, _ = matched(views, shape, "the trained model")
    layout = ParallelLayout.make(shape)
    whole = lambda entry: mm_views(tensors, shape, entry)  # noqa: E731
    trees = {
        rank: {
            "checkpoint_version": 3.0,
            "iteration": iteration,
            **tree,
            **with_views(extra or {}),
        }
        for rank, tree in rank_trees(layout, family, tied=shape.tied, whole=whole)
    }
    save_dir = Path(save_dir)
    directory = save_dir / iteration_name(iteration)
    with target_directory(directory) as temporary:
        write_ranks(temporary, trees, progress=progress, sync=True)
        sync_tree(temporary)
    track(save_dir, iteration)
    return directory


def load_hf_tensors(
    mm_dir: str | Path, config: dict[str, Any], *, iteration: int | str | None = None
) -> "dict[str, Tensor]":
    """All tensors of a Megatron checkpoint at any layout, as torch tensors by published name.

    `iteration`: a number or "release"; None: what the tracker names. `config` is config.json.
    Tensors that lie whole in one file are mapped into memory (private, so writing to them
    changes no file); the others (fused or cut ones) are put together in memory. What is read
    is compared with its checksum. Raises UserError as `mm_to_hf` does.
    """
    import torch

    shape = model_shape(config)
    with MMCheckpoint(mm_dir, iteration) as mm:
        maps: dict[Path, mmap.mmap] = {}
        result = {}
        buffers = Buffers()
        for name, view in hf_views(mm, shape).items():
            dtype = getattr(torch, view.dtype)
            start = _whole_in_file(view)
            if start is None:
                data = bytearray(view.nbytes)
                position = 0
                for chunk in stream(view, buffers):
                    data[position : position + len(chunk)] = chunk
                    position += len(chunk)
                flat = torch.frombuffer(data, dtype=dtype)
            else:
                for _ in stream(view, buffers):  # for the checksum
                    pass
                file = start[0]
                if file.path not in maps:
                    with open(file.path, "rb") as handle:
                        maps[file.path] = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY)
                count = view.nbytes // ITEM_BYTES[view.dtype]
                flat = torch.frombuffer(maps[file.path], dtype=dtype, count=count, offset=start[1])
            result[name] = flat.view(view.shape)
        mm.check()
    return result


def _whole_in_file(view: View) -> tuple[FileSource, int] | None:
    """The file and offset of a view that is one run of bytes, aligned for its dtype."""
    if len(view.patches) != 1:
        return None
    patch = view.patches[0]
    record = patch.source
    if patch.pitch != patch.width or not isinstance(record, RecordSource):
        return None
    start = record.start + patch.start
    return None if start % ITEM_BYTES[view.dtype] else (record.file, start)


def view_of_tensor(tensor: "Tensor") -> View:
    """A tensor in memory as a view; UserError for a dtype that no checkpoint has."""
    import torch

    dense = tensor.detach().to("cpu").contiguous()
    dtype = str(dense.dtype).removeprefix("torch.")
    if dtype not in ITEM_BYTES:
        raise UserError(f"a tensor of dtype {dtype} cannot be written to a checkpoint")
    raw = dense.reshape(-1).view(torch.uint8).numpy()
    return stored(MemorySource(raw), 0, tuple(dense.shape), dtype)


def with_views(value: Any) -> Any:
    """Plain containers with torch tensors replaced by views on them."""
    if isinstance(value, Mapping):
        return {key: with_views(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(with_views(item) for item in value)
    return view_of_tensor(value) if type(value).__module__.startswith("torch") else value
