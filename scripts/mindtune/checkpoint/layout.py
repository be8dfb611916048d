"""How a model is cut over tensor ranks, pipeline stages and virtual pipeline chunks.

The layer lists have the form of MindSpeed-MM 2.0.0's mm-convert: one row per virtual
pipeline (VPP) chunk, one column per pipeline stage, each number a count of layers. The
model runs through the rows in order, so chunk `v` of stage `p` is entry
`v * pp_size + p` of the flattened list.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mindtune.errors import UserError
from mindtune.models.shape import ModelShape
from mindtune.models.tensors import Tensors, tensors_of

if TYPE_CHECKING:
    from mindtune.settings.sections.parallel import Parallel

Rows = tuple[tuple[int, ...], ...]


def parse_layers(value: Any, name: str) -> Rows:
    """A layer list as rows: `[28]` and `[[28]]` mean the same; so do JSON texts of either."""
    given = value
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise UserError(
                f"{name} is {given[:200]!r}; a list like [[14, 14]] is needed (quoted, in a shell)"
            ) from None
    if isinstance(value, Sequence) and value and not isinstance(value, str):
        rows = value if all(_is_list(row) for row in value) else [value]
        if all(_is_list(row) and row and all(map(_is_count, row)) for row in rows):
            if len({len(row) for row in rows}) > 1:
                lengths = [len(row) for row in rows]
                raise UserError(
                    f"{name} is {given}: its rows have {lengths} stages, not equally many"
                )
            return tuple(tuple(row) for row in rows)
    raise UserError(f"{name} is {given!r}; a list of layer counts like [[14, 14]] is needed")


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def layout_options(parallel: "Parallel") -> dict[str, Any]:
    """The `parallel` section of a configuration as what `ParallelLayout.make` and conversions take."""
    return {
        "tp_size": parallel.tensor_model_parallel_size,
        "llm_pp_layers": parallel.llm_pp_layers,
        "vit_pp_layers": parallel.vit_pp_layers,
    }


@dataclass(frozen=True, slots=True)
class ParallelLayout:
    """tp_size tensor ranks, and the layer counts of each VPP chunk (row) and stage (column)."""

    tp_size: int
    llm_pp_layers: Rows
    vit_pp_layers: Rows

    @classmethod
    def make(
        cls,
        shape: ModelShape | None = None,
        *,
        tp_size: int = 1,
        llm_pp_layers: Any = None,
        vit_pp_layers: Any = None,
    ) -> "ParallelLayout":
        """A layout from what a user gave; None layers mean the whole of `shape` on one stage.

        With None for one list only, its layers go to the first chunk (vision) or, for the
        language model, to the last. Raises UserError for lists that do not fit one another,
        and, where `shape` is given, for lists and a tp_size that do not fit the model.
        """
        if not _is_count(tp_size) or tp_size < 1:
            raise UserError(f"tp_size is {tp_size!r}; a whole number from 1 is needed")
        if shape is None and (llm_pp_layers is None or vit_pp_layers is None):
            raise UserError("llm_pp_layers and vit_pp_layers are needed where no model is given")
        llm = None if llm_pp_layers is None else parse_layers(llm_pp_layers, "llm_pp_layers")
        vit = None if vit_pp_layers is None else parse_layers(vit_pp_layers, "vit_pp_layers")
        if vit is None:
            vit = _one_chunk_of(llm, 0, shape.vit_layers)
        if llm is None:
            llm = _one_chunk_of(vit, -1, shape.llm_layers)
        layout = cls(tp_size, llm, vit)
        layout._check()
        if shape is not None:
            layout.check_model(shape)
        return layout

    def _check(self) -> None:
        llm, vit = self.llm_pp_layers, self.vit_pp_layers
        if (len(llm), len(llm[0])) != (len(vit), len(vit[0])):
            raise UserError(
                f"llm_pp_layers has {len(llm)} chunk(s) of {len(llm[0])} stage(s), "
                f"vit_pp_layers {len(vit)} of {len(vit[0])}; they must be alike"
            )

    @property
    def pp_size(self) -> int:
        """Number of pipeline stages."""
        return len(self.llm_pp_layers[0])

    @property
    def vpp_size(self) -> int:
        """Number of chunks per stage (1: no virtual pipeline)."""
        return len(self.llm_pp_layers)

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """(vision layers, language layers) of each chunk, in the order the model runs."""
        vit = [n for row in self.vit_pp_layers for n in row]
        llm = [n for row in self.llm_pp_layers for n in row]
        return list(zip(vit, llm, strict=True))

    def rank_directory(self, tp_rank: int, pp_rank: int) -> str:
        """Name of a rank's directory: mp_rank_TT, or mp_rank_TT_PPP with more than one stage."""
        return f"mp_rank_{tp_rank:02d}" + (f"_{pp_rank:03d}" if self.pp_size > 1 else "")

    def check_model(self, shape: ModelShape) -> None:
        """Raise UserError, naming the numbers, if this layout cannot hold a model of `shape`."""
        self.check_family(tensors_of(shape))
        for name, rows, wanted in (
            ("llm_pp_layers", self.llm_pp_layers, shape.llm_layers),
            ("vit_pp_layers", self.vit_pp_layers, shape.vit_layers),
        ):
            total = sum(sum(row) for row in rows)
            if total != wanted:
                text = json.dumps(rows)
                raise UserError(f"{name} {text} adds up to {total} layers; the model has {wanted}")
        self.check_tp(
            {
                "key-value heads": shape.kv_heads,
                "attention heads": shape.heads,
                "rows of the feed-forward layer (intermediate_size)": shape.ffn,
                "vocabulary entries (vocab_size)": shape.vocab,
                "vision attention heads": shape.vit_heads,
                "rows of the vision feed-forward layer": shape.vit_ffn,
                "rows of the projector": shape.merged_hidden,
            }
        )

    def check_family(self, family: Tensors) -> None:
        """Raise UserError if models of a family are on one rank only, and this layout has more."""
        if family.one_rank and (self.tp_size > 1 or len(self.chunks) > 1):
            raise UserError(
                f"{family.name} is on one rank only, for MindSpeed-MM 2.0.0 doesn't know it; leave tensor "
                "parallel size 1 and all layers on one stage"
            )

    def check_tp(self, sizes: dict[str, int]) -> None:
        """Raise UserError if tp_size does not divide one of the named sizes."""
        for what, size in sizes.items():
            if size % self.tp_size:
                raise UserError(f"tp_size {self.tp_size} does not divide the model's {size} {what}")

    def training_problems(self) -> list[str]:
        """Why the framework cannot train this layout, one sentence each; [] if it can.

        Such a layout converts all the same, as mm-convert does it (its converter does not
        check; the model's constructor is what these rules come from).
        """
        problems = []
        chunks = self.chunks
        with_vit = [n for n, (vit, _) in enumerate(chunks) if vit]
        with_llm = [n for n, (_, llm) in enumerate(chunks) if llm]
        if len(chunks) == 1 or not with_vit or not with_llm:
            return problems
        if with_vit[0] != 0:
            problems.append(
                "the first stage has no vision layers, but is given the patch embedding, "
                "which the model looks for on the first stage that has some"
            )
        if with_llm[-1] != len(chunks) - 1:
            problems.append(
                "the last stage has no language layers, so the model builds no output there"
            )
        if with_llm[0] < with_vit[-1]:
            problems.append(
                "language layers start before the vision layers are complete, "
                "so they would run without the image"
            )
        return problems

    def idle_stages(self, frozen_encoder: bool, frozen_projector: bool) -> list[int]:
        """The stages, from 0, on which nothing is trained: they have frozen vision layers only."""
        vision, language = (
            [sum(column) for column in zip(*rows, strict=True)]
            for rows in (self.vit_pp_layers, self.llm_pp_layers)
        )
        with_vision = [stage for stage, layers in enumerate(vision) if layers]
        return [
            stage
            for stage in with_vision
            if not language[stage]
            and frozen_encoder
            and (frozen_projector or stage != with_vision[-1])
        ]

    def context_problems(self, shape: ModelShape, context: int) -> list[str]:
        """Why the framework cannot cut this layout's sequences over `context` ranks; [] if it can.

        From its MMGPTModel, vision model and attention: the part of the sequence is taken
        where the embedding is, and attention exchanges parts of the sequence for heads. Key-value
        heads are repeated where they are fewer than the ranks; otherwise they have to come out
        even, or query heads would meet those of others.
        """
        if context == 1:
            return []
        problems = []
        if self.pp_size > 1:
            problems.append(
                f"the model is on {self.pp_size} stages, and only one that has all of it can cut a "
                "sequence; put all layers on one stage, or write 1"
            )
        heads, kv_heads = shape.heads // self.tp_size, shape.kv_heads // self.tp_size
        fewest = min(heads, shape.vit_heads // self.tp_size)
        if context > fewest:
            problems.append(
                f"a tensor rank has {fewest} attention heads, which can't be shared out to {context} "
                f"ranks; write at most {fewest}"
            )
        elif context <= kv_heads and kv_heads % context:
            problems.append(
                f"it doesn't divide the {kv_heads} key-value heads of a tensor rank; write a number "
                "that does"
            )
        return problems

    def describe(self) -> str:
        """One line: `tp 2, pp 2, llm [[1, 1]], vit [[2, 0]]`."""
        vpp = f", vpp {self.vpp_size}" if self.vpp_size > 1 else ""
        llm, vit = (json.dumps(rows) for rows in (self.llm_pp_layers, self.vit_pp_layers))
        return f"tp {self.tp_size}, pp {self.pp_size}{vpp}, llm {llm}, vit {vit}"


def _one_chunk_of(other: Rows | None, index: int, layers: int) -> Rows:
    """Rows like `other` (None: one stage) that hold all `layers` in their chunk `index`."""
    if other is None:
        return ((layers,),)
    width = len(other[0])
    flat = [0] * (width * len(other))
    flat[index] = layers
    return tuple(tuple(flat[n : n + width]) for n in range(0, len(flat), width))
