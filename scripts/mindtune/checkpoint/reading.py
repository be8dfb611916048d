"""From an open checkpoint of either kind to published names, with everything checked."""

import logging
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from mindtune.checkpoint.megatron import MMCheckpoint
from mindtune.errors import UserError
from mindtune.formats.streaming import Buffers, Progress, run_all, stream
from mindtune.formats.views import View
from mindtune.models.shape import ModelShape
from mindtune.models.tensors import (
    Entry,
    Fuse,
    Tensors,
    fuse,
    hf_shapes,
    tensors_of,
    unfuse,
)

log = logging.getLogger("mindtune.checkpoint")


def hf_views(mm: MMCheckpoint, shape: ModelShape) -> dict[str, View]:
    """Published name -> view of all tensors of a Megatron checkpoint of a model of `shape`.

    Raises UserError if the layer counts, names, shapes or dtypes are not those of the model,
    or if a tied model's copy of the embedding on the last stage has come to differ from it.
    """
    if mm.is_lora:
        raise UserError(f"{mm.directory} holds LoRA adapters only; base weights are needed as well")
    check_model(mm, shape)
    family = tensors_of(shape)
    tensors: dict[str, View] = {}
    for entry in family.entries(shape.llm_layers, shape.vit_layers, output=not shape.tied):
        whole = mm.whole(entry)
        check_shape(mm, entry, whole, shape)
        for name, view in zip(entry.hf, unfuse(entry.rule, whole, shape), strict=True):
            tensors[name] = view
    check_copies(mm, family, tied=shape.tied)
    return {name: tensors[name] for name in hf_shapes(shape)}


def check_model(mm: MMCheckpoint, shape: ModelShape) -> None:
    """Raise UserError unless the checkpoint's layers and tensor names are those of the model."""
    for kind, rows, wanted in (
        ("language", mm.layout.llm_pp_layers, shape.llm_layers),
        ("vision", mm.layout.vit_pp_layers, shape.vit_layers),
    ):
        total = sum(map(sum, rows))
        if total != wanted:
            raise UserError(
                f"{mm.directory} holds {total} {kind} layers on {mm.layout.pp_size} stage(s), "
                f"config.json says {wanted}; either stages are missing or it is another model"
            )
    family = tensors_of(shape)
    known = family.entries(shape.llm_layers, shape.vit_layers, output=True)
    if unknown := mm.unknown_names(known):
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise UserError(
            f"{mm.directory} has a tensor {unknown[0]}{more} that is none of {family.name}'s"
        )


def check_shape(mm: MMCheckpoint, entry: Entry, whole: View, shape: ModelShape) -> None:
    """Raise UserError unless a joined tensor has the shape the model implies."""
    wanted = mm_shape(entry, hf_shapes_cached(shape))
    if whole.shape != wanted:
        raise UserError(
            f"{mm.directory}: {entry.mm} has the shape {list(whole.shape)} over "
            f"{mm.layout.tp_size} tensor rank(s), config.json implies {list(wanted)}; "
            "either ranks are missing or it is another model"
        )


@lru_cache(maxsize=8)
def hf_shapes_cached(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """`hf_shapes`, with the output layer even of a tied model."""
    shapes, family = hf_shapes(shape), tensors_of(shape)
    return {family.output_hf: shapes[family.embedding_hf], **shapes}


def mm_shape(entry: Entry, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Shape of a whole Megatron tensor, from those of its Hugging Face tensors."""
    parts = [shapes[name] for name in entry.hf]
    if entry.rule.fuse in (Fuse.QKV, Fuse.GATE_UP):
        return (sum(part[0] for part in parts), *parts[0][1:])
    return parts[0]


def mm_views(tensors: dict[str, View], shape: ModelShape, entry: Entry) -> View:
    """A whole Megatron tensor made of a model's Hugging Face tensors; all have to be alike."""
    parts = [tensors[name] for name in entry.hf]
    if len(dtypes := {view.dtype for view in parts}) > 1:
        mixed = " and ".join(sorted(dtypes))
        raise UserError(f"{', '.join(entry.hf)} belong in one tensor, but are {mixed}")
    return fuse(entry.rule, parts, shape)


def check_copies(mm: MMCheckpoint, family: Tensors, *, tied: bool) -> None:
    """Compare what several ranks hold of the same tensor.

    A tied model's output layer has to equal the embedding (UserError otherwise, for one of
    the two would be lost). Replicated tensors that differ are warned about: rank 0's is used.
    """
    if tied and family.output_mm in mm.names():
        pairs = zip(mm.shards(family.embedding_mm), mm.shards(family.output_mm), strict=True)
        if not all(same_bytes(a, b) for a, b in pairs):
            raise UserError(
                f"{mm.directory}: the output layer and the word embedding differ, but config.json "
                "says they are tied; set tie_word_embeddings to false there to keep both"
            )
    different = [name for name, one, other in mm.copies(family) if not same_bytes(one, other)]
    if different:
        log.warning(
            "%s: %d tensor(s) that all ranks should hold alike differ, %s first; rank 0's are used",
            mm.directory,
            len(different),
            different[0],
        )


def same_bytes(one: View, other: View) -> bool:
    """Whether two views are equal in dtype, shape and every byte."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    chunks = zip(stream(one, Buffers()), stream(other, Buffers()), strict=True)
    return all(bytes(a) == bytes(b) for a, b in chunks)


def compare(
    pairs: Iterable[tuple[str, View, View]],
    result: Path,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Compare (name, wanted, found) element by element; (tensors, bytes) that were compared.

    Raises UserError naming the first tensor found to differ and the index of an element.
    """
    pairs = list(pairs)

    class Comparison:
        def __init__(self, name: str, wanted: View, found: View):
            self.name, self.wanted, self.found = name, wanted, found

        def __call__(self, buffers: Buffers) -> Iterator[int]:
            if (self.wanted.dtype, self.wanted.shape) != (self.found.dtype, self.found.shape):
                raise UserError(
                    f"{result}: {self.name} is {self.found.dtype} {list(self.found.shape)}, "
                    f"but should be {self.wanted.dtype} {list(self.wanted.shape)}"
                )
            done = 0
            other = Buffers()
            both = zip(stream(self.wanted, buffers), stream(self.found, other), strict=True)
            for a, b in both:
                if bytes(a) != bytes(b):  # bytes compare by memcmp, memoryviews do not
                    byte = done + next(n for n in range(len(a)) if a[n] != b[n])
                    item = self.wanted.nbytes // max(_elements(self.wanted), 1)
                    raise UserError(f"{result}: {self.name} differs at element {byte // item}")
                done += len(a)
                yield len(a)

    total = sum(wanted.nbytes for _, wanted, _ in pairs)
    run_all([Comparison(*pair) for pair in pairs], total, workers=workers, progress=progress)
    return len(pairs), total


def _elements(view: View) -> int:
    count = 1
    for n in view.shape:
        count *= n
    return count
