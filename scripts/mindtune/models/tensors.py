"""A model's tensors in both worlds, and what becomes of each on the way.

Hugging Face names are the published ones; Megatron names those of MindSpeed-MM 2.0.0
(`text_decoder.*`, `image_encoder.*`). The `rules` of a family are the whole mapping; the functions
below carry it out in either direction on views (see `views`). The effect on bytes follows mm-convert
of MindSpeed-MM 2.0.0, against which the conformance tests compare every rank file.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from mindtune.formats.views import View, stack_columns, stack_rows, take_columns, take_rows
from mindtune.models import FAMILIES, room
from mindtune.models.shape import ModelShape

if TYPE_CHECKING:
    from mindtune.settings.sections.train import Train

# The number of a layer, in a Megatron name.
LAYER = re.compile(r"\.layers\.(\d+)\.")
# Part of a model -> the key of `train` that leaves it as it is.
FREEZES = {"vision": "freeze_vision_encoder", "projector": "freeze_vision_projector"}


class Fuse(Enum):
    """How the Hugging Face tensors of a rule make its Megatron tensor (G key-value heads)."""

    SAME = auto()  # one tensor, unchanged
    QKV = auto()  # q, k, v -> per group g: [query heads of g][key head g][value head g]
    GATE_UP = auto()  # gate, up -> [all of gate][all of up]
    VISION_QKV = auto()  # [all q][all k][all v] -> per head h: [q h][k h][v h]


class Split(Enum):
    """How tensor parallelism cuts a Megatron tensor."""

    COPY = auto()  # every rank holds it whole
    ROWS = auto()  # dimension 0, evenly
    COLUMNS = auto()  # dimension 1, evenly
    GATE_UP = auto()  # the gate half and the up half are each cut: [gate of r][up of r]


class Part(Enum):
    """The part of the model a tensor belongs to; it decides the pipeline stage."""

    PATCHES = auto()
    VIT_LAYER = auto()
    PROJECTOR = auto()
    EMBEDDING = auto()
    LLM_LAYER = auto()
    FINAL_NORM = auto()
    OUTPUT = auto()


@dataclass(frozen=True, slots=True)
class Rule:
    """One Megatron tensor and the Hugging Face tensors it is made of; `{n}` is a layer number."""

    part: Part
    mm: str
    hf: tuple[str, ...]
    fuse: Fuse = Fuse.SAME
    split: Split = Split.COPY


@dataclass(frozen=True, slots=True)
class Entry:
    """A Megatron tensor of a model: its rule, and its layer number in the whole model if any."""

    rule: Rule
    layer: int | None

    @property
    def mm(self) -> str:
        """Its Megatron name, layers numbered through the whole model."""
        return self.rule.mm.format(n=self.layer)

    @property
    def hf(self) -> tuple[str, ...]:
        """The Hugging Face names it is made of."""
        return tuple(name.format(n=self.layer) for name in self.rule.hf)


@dataclass(frozen=True)
class Tensors:
    """The tensors of a family's models.

    name: of the family, in sentences. rules: one for each Megatron tensor, those of a part in its order.
    embedding_mm, embedding_hf, output_mm, output_hf: names of the word embedding and of the output
    layer, which a tied model lacks. vision, projector: what published names of the vision model begin
    with, and of its last part, the projector, or its several ones. renamed: beginnings that newer transformers give, and the
    published ones. computed: buffers that some versions save and every version computes. sizes: for a
    model's sizes, what gives the shape of a tensor by its published name. one_rank: whether Megatron's
    layout is this project's own, which no framework reads, and has one rank.
    """

    name: str
    rules: tuple[Rule, ...]
    embedding_mm: str
    embedding_hf: str
    output_mm: str
    output_hf: str
    vision: str
    projector: str | tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    computed: re.Pattern[str]
    sizes: Callable[[ModelShape], Callable[[str], tuple[int, ...]]]
    one_rank: bool = False

    @cached_property
    def _by_name(self) -> dict[str, Rule]:
        return {rule.mm: rule for rule in self.rules}

    def rule_of(self, name: str) -> Rule | None:
        """The rule of a Megatron tensor's name, or None."""
        return self._by_name.get(unnumbered(name))

    @property
    def embedding(self) -> Entry:
        """The word embedding."""
        return Entry(self._by_name[self.embedding_mm], None)

    def published_name(self, name: str) -> str:
        """The name a tensor has in the published checkpoints (as given, if it is one already)."""
        for newer, published in self.renamed:
            if name.startswith(newer):
                return published + name.removeprefix(newer)
        return name

    def kind(self, name: str) -> str:
        """`language`, `vision` or `projector`: where a published tensor belongs."""
        if name.startswith(self.projector):
            return "projector"
        return "vision" if name.startswith(self.vision) else "language"

    def is_trained(self, name: str, train: "Train") -> bool:
        """Whether a published tensor is trained, by the `freeze_…` keys of a training."""
        kind = self.kind(name)
        return kind == "language" or not getattr(train, FREEZES[kind])

    def entries(self, llm_layers: int, vit_layers: int, *, output: bool) -> list[Entry]:
        """All Megatron tensors of a model, in the order it runs; `output`: with an output layer."""
        counts = {Part.VIT_LAYER: vit_layers, Part.LLM_LAYER: llm_layers, Part.OUTPUT: int(output)}
        result = []
        for part in Part:
            rules = [rule for rule in self.rules if rule.part is part]
            layered = part in (Part.VIT_LAYER, Part.LLM_LAYER)
            for n in range(counts.get(part, 1)):
                result += [Entry(rule, n if layered else None) for rule in rules]
        return result

    def entries_of_chunk(
        self, chunks: Sequence[tuple[int, int]], index: int, *, output: bool
    ) -> Iterator[tuple[str, Entry]]:
        """(name in the rank file, entry) of each tensor of chunk `index` of a layout.

        `chunks` are the (vision, language) layer counts of `ParallelLayout.chunks`. Layers are
        numbered from 0 within a chunk. As mm-convert places them: patch embedding on the first
        chunk, projector on the last with vision layers, embedding on the first with language
        layers, final norm and output layer on the last chunk.
        """
        with_vit = [n for n, (vit, _) in enumerate(chunks) if vit]
        with_llm = [n for n, (_, llm) in enumerate(chunks) if llm]
        last = len(chunks) - 1
        home = {
            Part.PATCHES: 0,
            Part.PROJECTOR: with_vit[-1] if with_vit else 0,
            Part.EMBEDDING: with_llm[0] if with_llm else last,
            Part.FINAL_NORM: last,
            Part.OUTPUT: last,
        }
        vit_start = sum(vit for vit, _ in chunks[:index])
        llm_start = sum(llm for _, llm in chunks[:index])
        starts = {Part.VIT_LAYER: vit_start, Part.LLM_LAYER: llm_start}
        counts = {Part.VIT_LAYER: chunks[index][0], Part.LLM_LAYER: chunks[index][1]}
        for part in Part:
            rules = [rule for rule in self.rules if rule.part is part]
            if part in starts:
                for n in range(counts[part]):
                    for rule in rules:
                        yield rule.mm.format(n=n), Entry(rule, starts[part] + n)
            elif home[part] == index and (output or part is not Part.OUTPUT):
                for rule in rules:
                    yield rule.mm, Entry(rule, None)


class HasType(Protocol):
    """Sizes, or a config of transformers."""

    model_type: str


def tensors_of(model: HasType) -> Tensors:
    """The tensors of a model's family."""
    return room(model.model_type, "tensors").TENSORS


def tensors_in(names: Iterable[str]) -> Tensors:
    """The family whose Megatron names are nearest to those of a checkpoint, which says no more of it."""
    found = {unnumbered(name) for name in names}
    return min(every_family(), key=lambda tensors: len(found ^ {rule.mm for rule in tensors.rules}))


def every_family() -> list[Tensors]:
    """The tensors of all families."""
    return [room(name, "tensors").TENSORS for name in FAMILIES]


def unnumbered(name: str) -> str:
    """A Megatron name as in a rule, with `{n}` for the number of its layer."""
    return LAYER.sub(".layers.{n}.", name, count=1)


@lru_cache(maxsize=8)
def hf_shapes(shape: ModelShape) -> Mapping[str, tuple[int, ...]]:
    """Published name -> shape of every tensor of a model, embedding first, vision last."""
    tensors = tensors_of(shape)
    found = tensors.entries(shape.llm_layers, shape.vit_layers, output=not shape.tied)
    names = [name for entry in found for name in entry.hf]
    language = [name for name in names if not name.startswith(tensors.vision)]
    vision = [name for name in names if name.startswith(tensors.vision)]
    size_of = tensors.sizes(shape)
    return MappingProxyType({name: size_of(name) for name in (*language, *vision)})


# --- What becomes of the bytes -----------------------------------------------------------


def _blocks(view: View, sizes: Sequence[int]) -> list[View]:
    """The view cut along dimension 0 into pieces of the given numbers of rows."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(take_rows(view, start, start + size))
        start += size
    return pieces


def _transposed(view: View, outer: int, inner: int, sizes: Sequence[int]) -> list[list[View]]:
    """`outer` times `inner` blocks, block i of each group having sizes[i] rows, by inner index."""
    blocks = _blocks(view, list(sizes) * outer)
    return [blocks[n::inner] for n in range(inner)]


def fuse(rule: Rule, parts: Sequence[View], shape: ModelShape) -> View:
    """The Megatron tensor (whole, all tensor ranks) made of its Hugging Face tensors."""
    if rule.fuse is Fuse.GATE_UP:
        return stack_rows(parts)
    if rule.fuse is Fuse.QKV:
        groups = shape.kv_heads
        by_group = [_blocks(part, [part.rows // groups] * groups) for part in parts]
        return stack_rows([block for group in zip(*by_group, strict=True) for block in group])
    if rule.fuse is Fuse.VISION_QKV:
        heads = shape.vit_heads
        size = parts[0].rows // 3 // heads
        by_head = _transposed(parts[0], 3, heads, [size] * heads)
        return stack_rows([block for head in by_head for block in head])
    return parts[0]


def unfuse(rule: Rule, whole: View, shape: ModelShape) -> list[View]:
    """The Hugging Face tensors of a whole Megatron tensor; the inverse of `fuse`."""
    if rule.fuse is Fuse.GATE_UP:
        return _blocks(whole, [whole.rows // 2] * 2)
    if rule.fuse is Fuse.QKV:
        queries = shape.heads // shape.kv_heads * shape.head_dim
        sizes = [queries, shape.head_dim, shape.head_dim]
        return [stack_rows(blocks) for blocks in _transposed(whole, shape.kv_heads, 3, sizes)]
    if rule.fuse is Fuse.VISION_QKV:
        size = whole.rows // 3 // shape.vit_heads
        kinds = _transposed(whole, shape.vit_heads, 3, [size] * 3)
        return [stack_rows([block for kind in kinds for block in kind])]
    return [whole]


def shard(split: Split, whole: View, tp_size: int, tp_rank: int) -> View:
    """What tensor rank `tp_rank` of `tp_size` holds of a whole Megatron tensor."""

    def cut(take: Callable[[View, int, int], View], view: View, length: int) -> View:
        size = length // tp_size
        return take(view, tp_rank * size, (tp_rank + 1) * size)

    if tp_size == 1 or split is Split.COPY:
        return whole
    if split is Split.COLUMNS:
        return cut(take_columns, whole, whole.shape[1])
    if split is Split.GATE_UP:
        halves = _blocks(whole, [whole.rows // 2] * 2)
        return stack_rows([cut(take_rows, half, half.rows) for half in halves])
    return cut(take_rows, whole, whole.rows)


def unshard(split: Split, shards: Sequence[View]) -> View:
    """The whole Megatron tensor from what all tensor ranks hold; the inverse of `shard`."""
    if len(shards) == 1 or split is Split.COPY:
        return shards[0]
    if split is Split.COLUMNS:
        return stack_columns(shards)
    if split is Split.GATE_UP:
        halves = [_blocks(view, [view.rows // 2] * 2) for view in shards]
        return stack_rows([half[n] for n in (0, 1) for half in halves])
    return stack_rows(shards)
