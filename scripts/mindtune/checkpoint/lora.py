"""LoRA adapters merged into base weights: W + alpha / r * B A, row by row.

MindSpeed-MM 2.0.0 trains adapters through peft; with LoRA its checkpoints hold only
`<module>.lora_A.<adapter>.weight` (r x inputs) and `<module>.lora_B.<adapter>.weight`
(outputs x r). Over tensor ranks, modules whose rows are cut have B cut and A whole; modules
whose columns are cut have A cut and B whole (peft, tuners/lora/tp_layer.py).

The merge is computed in float32 and rounded once to the base's dtype. The framework's own
merge_lora.py adds in the weights' dtype, so results may differ from it in
the last bit.
"""

import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mindtune.checkpoint.huggingface import HFCheckpoint
from mindtune.checkpoint.megatron import MMCheckpoint
from mindtune.checkpoint.reading import hf_views, mm_views
from mindtune.errors import UserError
from mindtune.formats.streaming import Buffers, stream
from mindtune.formats.views import View, stored, take_rows
from mindtune.models.shape import ModelShape
from mindtune.models.tensors import Entry, Split, hf_shapes, tensors_of, unfuse, unshard

_ADAPTER = re.compile(r"(.+)\.lora_([AB])\.([^.]+)\.weight$")
_STEP = 1 << 22  # bytes of float32 rows at a time


def merged_views(
    adapters: MMCheckpoint,
    shape: ModelShape,
    hf_dir: Path,
    base_dir: str | Path | None,
    alpha: float | None,
    stack: ExitStack,
) -> tuple[dict[str, View], Callable[[], None]]:
    """Published name -> view of the base weights with adapters merged, and the checksum check.

    The base is the Megatron checkpoint `base_dir` or else the weights in `hf_dir`; it is kept
    open on `stack`. Raises UserError if adapters are incomplete or fit no weight.
    """
    if base_dir is None:
        base_hf = stack.enter_context(HFCheckpoint(hf_dir)).tensors
        check = adapters.check
    else:
        base = stack.enter_context(MMCheckpoint(base_dir))
        base_hf = hf_views(base, shape)

        def check() -> None:
            adapters.check()
            base.check()

    alpha = adapters.arguments.get("lora_alpha") if alpha is None else alpha
    if not isinstance(alpha, int | float) or isinstance(alpha, bool):
        raise UserError(f"{adapters.directory} does not say its lora_alpha; give it (lora_alpha)")
    layout = adapters.layout
    held = [sum(map(sum, rows)) for rows in (layout.llm_pp_layers, layout.vit_pp_layers)]
    if held[0] not in (0, shape.llm_layers) or held[1] not in (0, shape.vit_layers):
        raise UserError(
            f"{adapters.directory} has adapters for {held[0]} language and {held[1]} vision "
            f"layers; config.json says {shape.llm_layers} and {shape.vit_layers}"
        )
    pairs = _pairs(adapters)
    tensors = dict(base_hf)
    found = tensors_of(shape).entries(shape.llm_layers, shape.vit_layers, output=not shape.tied)
    for entry in found:
        module, _, kind = entry.mm.rpartition(".")
        if kind == "weight" and module in pairs:
            low, high = pairs.pop(module)
            weight = mm_views(base_hf, shape, entry)
            view = _merged(adapters, entry, weight, low, high, float(alpha))
            for name, part in zip(entry.hf, unfuse(entry.rule, view, shape), strict=True):
                tensors[name] = part
    if pairs:
        raise UserError(
            f"{adapters.directory} has adapters for {next(iter(pairs))}, no such module"
        )
    return {name: tensors[name] for name in hf_shapes(shape)}, check


def _pairs(adapters: MMCheckpoint) -> dict[str, tuple[str, str]]:
    """Module -> the names of its A and its B."""
    found: dict[str, dict[str, str]] = {}
    for name in adapters.names():
        match = _ADAPTER.match(name)
        if not match:
            raise UserError(f"{adapters.directory}: {name} is no adapter that can be merged")
        if match[2] in found.setdefault(match[1], {}):
            raise UserError(f"{adapters.directory} has two adapters for {match[1]}")
        found[match[1]][match[2]] = name
    for module, names in found.items():
        if len(names) != 2:
            raise UserError(f"{adapters.directory} has half an adapter for {module}")
    return {module: (names["A"], names["B"]) for module, names in found.items()}


def _merged(
    adapters: MMCheckpoint, entry: Entry, weight: View, a_name: str, b_name: str, alpha: float
) -> View:
    columns = entry.rule.split is Split.COLUMNS
    a_shards, b_shards = adapters.shards(a_name), adapters.shards(b_name)
    a = unshard(Split.COLUMNS if columns else Split.COPY, a_shards)
    b = unshard(Split.COPY if columns else entry.rule.split, b_shards)
    wanted = (b.shape[0], a.shape[1]) if len(a.shape) == len(b.shape) == 2 else None
    if wanted != weight.shape or a.shape[0] != b.shape[1]:
        raise UserError(
            f"{adapters.directory}: adapters {list(b.shape)} x {list(a.shape)} do not fit "
            f"{entry.mm} {list(weight.shape)}"
        )
    scale = alpha / a.shape[0]
    source = MergedSource(weight, loaded(b), loaded(a), scale)
    return stored(source, 0, weight.shape, weight.dtype)


def loaded(view: View) -> Any:
    """A small view as a float32 torch tensor of its shape."""
    import torch

    data = bytearray().join(bytes(chunk) for chunk in stream(view, Buffers()))
    return torch.frombuffer(data, dtype=getattr(torch, view.dtype)).view(view.shape).float()


class MergedSource:
    """The merged weight W + scale * B A as a source of bytes, computed for the rows asked for.

    weight: W, (outputs, inputs). b, a: float32 tensors, (outputs, r) and (r, inputs).
    """

    def __init__(self, weight: View, b: Any, a: Any, scale: float):
        self.weight, self.b, self.a, self.scale = weight, b, a, scale

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from byte `offset` of the merged weight on."""
        width = self.weight.row_bytes
        row, end = offset // width, -(-(offset + len(buffer)) // width)
        step = max(1, _STEP // (4 * self.weight.shape[1]))
        position = 0
        for first in range(row, end, step):
            rows = self._rows(first, min(first + step, end))
            begin = max(offset - first * width, 0)
            part = rows[begin : begin + len(buffer) - position]
            buffer[position : position + len(part)] = part
            position += len(part)

    def _rows(self, first: int, last: int) -> memoryview:
        import torch

        data = bytearray().join(
            bytes(chunk) for chunk in stream(take_rows(self.weight, first, last), Buffers())
        )
        dtype = getattr(torch, self.weight.dtype)
        base = torch.frombuffer(data, dtype=dtype).view(last - first, -1)
        merged = torch.addmm(base.float(), self.b[first:last], self.a, alpha=self.scale).to(dtype)
        return memoryview(merged.contiguous().view(torch.uint8).numpy()).cast("B")
