"""LoRA adapters of a training merged into base weights, W + alpha / r * (B A), or given as peft's.

A checkpoint of a training with LoRA holds `<module>.lora_A.<adapter>.weight` (r x inputs) and
`<module>.lora_B.<adapter>.weight` (outputs x r) only. MindSpeed-MM 2.0.0 trains them through peft, with
Megatron's names of modules; over tensor ranks, modules whose rows are cut have B cut and A whole;
modules whose columns are cut have A cut and B whole (peft, tuners/lora/tp_layer.py). The `hf` engine
writes the same, and published names of modules where each has an A of its own.

The merge is computed in float32 and rounded once, see `MergedSource`. The framework's own
merge_lora.py adds in the weights' dtype, so results may differ from it in the last bit.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindtune.checkpoint.huggingface import HFCheckpoint
from mindtune.checkpoint.megatron import MMCheckpoint
from mindtune.checkpoint.reading import hf_views
from mindtune.errors import UserError
from mindtune.formats.streaming import Buffers, stream
from mindtune.formats.views import ITEM_BYTES, View, stored, take_rows
from mindtune.models.shape import ModelShape
from mindtune.models.tensors import Split, fuse, hf_shapes, tensors_of, unfuse, unshard

# The entry of the `hf` engine's checkpoints that says what the adapters are: the section train.lora.
LORA = "lora"
_ADAPTER = re.compile(r"(.+)\.lora_([AB])\.([^.]+)\.weight$")
_STEP = 1 << 22  # bytes of float32 rows at a time


@dataclass(frozen=True)
class Pair:
    """The two matrices of a weight, a (r, inputs) and b (outputs, r), and their scale."""

    a: View
    b: View
    scale: float

    def merged(self, weight: View, dtype: str) -> View:
        """A weight with the adapter in it."""
        source = MergedSource(weight, loaded(self.b), loaded(self.a), self.scale, dtype)
        return stored(source, 0, weight.shape, dtype)


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
    open on `stack`. Adapters that were trained in float32 give a model in float32, as such a training
    of the model itself does. Raises UserError if adapters are incomplete or fit no weight.
    """
    if base_dir is None:
        tensors = dict(stack.enter_context(HFCheckpoint(hf_dir)).tensors)
        check = adapters.check
    else:
        base = stack.enter_context(MMCheckpoint(base_dir))
        tensors = hf_views(base, shape)

        def check() -> None:
            adapters.check()
            base.check()

    pairs = pairs_of(adapters, shape, alpha)
    return merged_with(tensors, shape, pairs, widen=True), check


def merged_with(
    tensors: Mapping[str, View], shape: ModelShape, pairs: Mapping[str, Pair], widen: bool
) -> dict[str, View]:
    """Published name -> view of the weights, those that have a pair merged.

    widen: give all in float32 where the adapters are; otherwise every weight keeps its dtype.
    """
    to_float = widen and any(pair.b.dtype == "float32" for pair in pairs.values())
    found = {}
    for name in hf_shapes(shape):
        view = tensors[name]
        dtype = "float32" if to_float else view.dtype
        if name in pairs:
            found[name] = pairs[name].merged(view, dtype)
        elif dtype != view.dtype:
            found[name] = stored(ConvertedSource(view, dtype), 0, view.shape, dtype)
        else:
            found[name] = view
    return found


def pairs_of(
    adapters: MMCheckpoint, shape: ModelShape, alpha: float | None = None
) -> dict[str, Pair]:
    """Published name of a weight -> its pair, of all adapters in a checkpoint.

    alpha: None for what the checkpoint says.

    Raises
    ------
    UserError: adapters are incomplete, or fit no weight of the model.
    """
    if alpha is None:
        alpha = adapters.beside(LORA).get("alpha", adapters.arguments.get("lora_alpha"))
    if not isinstance(alpha, int | float) or isinstance(alpha, bool):
        raise UserError(f"{adapters.directory} does not say its lora_alpha; give it (lora_alpha)")
    layout = adapters.layout
    held = [sum(map(sum, rows)) for rows in (layout.llm_pp_layers, layout.vit_pp_layers)]
    if held[0] not in (0, shape.llm_layers) or held[1] not in (0, shape.vit_layers):
        raise UserError(
            f"{adapters.directory} has adapters for {held[0]} language and {held[1]} vision "
            f"layers; config.json says {shape.llm_layers} and {shape.vit_layers}"
        )
    modules = _modules(adapters)
    found = dict(_fused_pairs(adapters, shape, modules, float(alpha)))
    shapes = hf_shapes(shape)
    for module in [module for module in modules if f"{module}.weight" in shapes]:
        a, b = (adapters.shards(name)[0] for name in modules.pop(module))
        _check_fit(adapters, module, a, b, shapes[f"{module}.weight"])
        found[f"{module}.weight"] = Pair(a, b, float(alpha) / a.shape[0])
    if modules:
        raise UserError(
            f"{adapters.directory} has adapters for {next(iter(modules))}, no such module"
        )
    return {name: found[name] for name in shapes if name in found}


def _fused_pairs(
    adapters: MMCheckpoint, shape: ModelShape, modules: dict[str, tuple[str, str]], alpha: float
) -> Iterator[tuple[str, Pair]]:
    """Those of Megatron's modules, which it takes out of `modules`: parts share A, and have rows of B."""
    shapes = hf_shapes(shape)
    family = tensors_of(shape)
    for entry in family.entries(shape.llm_layers, shape.vit_layers, output=not shape.tied):
        module, _, kind = entry.mm.rpartition(".")
        if kind != "weight" or module not in modules:
            continue
        low, high = modules.pop(module)
        columns = entry.rule.split is Split.COLUMNS
        a = unshard(Split.COLUMNS if columns else Split.COPY, adapters.shards(low))
        b = unshard(Split.COPY if columns else entry.rule.split, adapters.shards(high))
        rows = sum(shapes[name][0] for name in entry.hf)
        _check_fit(adapters, entry.mm, a, b, (rows, *shapes[entry.hf[0]][1:]))
        for name, part in zip(entry.hf, unfuse(entry.rule, b, shape), strict=True):
            yield name, Pair(a, part, alpha / a.shape[0])


def _check_fit(
    adapters: MMCheckpoint, name: str, a: View, b: View, weight: tuple[int, ...]
) -> None:
    wanted = (b.shape[0], a.shape[1]) if len(a.shape) == len(b.shape) == 2 else None
    if wanted != tuple(weight) or a.shape[0] != b.shape[1]:
        raise UserError(
            f"{adapters.directory}: adapters {list(b.shape)} x {list(a.shape)} do not fit "
            f"{name} {list(weight)}; they were trained on another model"
        )


def _modules(adapters: MMCheckpoint) -> dict[str, tuple[str, str]]:
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


def fused_tensors(modules: Mapping[str, tuple[View, ...]], shape: ModelShape) -> dict[str, View]:
    """The tensors of a checkpoint's file: Megatron's modules, with the rows of B in their order.

    modules: what `lora_A` and `lora_B` of each module are, by name: a Megatron module has A and the B of
    each part, a published one A and its B.
    """
    family = tensors_of(shape)
    by_module = {
        entry.mm.removesuffix(".weight"): entry.rule
        for entry in family.entries(shape.llm_layers, shape.vit_layers, output=not shape.tied)
    }
    found = {}
    for module, (a, *parts) in modules.items():
        rule = by_module.get(module)
        found[adapter_name(module, "A")] = a
        found[adapter_name(module, "B")] = fuse(rule, parts, shape) if rule else parts[0]
    return found


def adapter_name(module: str, which: str) -> str:
    """The name of a module's matrix `A` or `B` in a checkpoint."""
    return f"{module}.lora_{which}.default.weight"


def loaded(view: View) -> Any:
    """A small view as a float32 torch tensor of its shape."""
    return _read(view).float()


def _read(view: View) -> Any:
    import torch

    data = bytearray().join(bytes(chunk) for chunk in stream(view, Buffers()))
    return torch.frombuffer(data, dtype=getattr(torch, view.dtype)).view(view.shape)


class ConvertedSource:
    """A tensor in another dtype as a source of bytes, computed for the rows asked for."""

    def __init__(self, weight: View, dtype: str):
        self.weight, self.dtype = weight, dtype
        items = weight.row_bytes // ITEM_BYTES[weight.dtype]
        self.width = items * ITEM_BYTES[dtype]
        self.step = max(1, _STEP // (4 * items))

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from byte `offset` of the result on."""
        row, end = offset // self.width, -(-(offset + len(buffer)) // self.width)
        position = 0
        for first in range(row, end, self.step):
            rows = self._rows(first, min(first + self.step, end))
            begin = max(offset - first * self.width, 0)
            part = rows[begin : begin + len(buffer) - position]
            buffer[position : position + len(part)] = part
            position += len(part)

    def _rows(self, first: int, last: int) -> memoryview:
        import torch

        found = self.computed(first, last).to(getattr(torch, self.dtype))
        return memoryview(found.contiguous().view(-1).view(torch.uint8).numpy()).cast("B")

    def computed(self, first: int, last: int) -> Any:
        """Rows of the result, in any dtype."""
        if not self.weight.shape:
            return _read(self.weight).view(1)
        return _read(take_rows(self.weight, first, last))


class MergedSource(ConvertedSource):
    """The merged weight W + scale * (B A), computed as peft's merge does in float32.

    weight: W, (outputs, inputs). b, a: float32 tensors, (outputs, r) and (r, inputs).
    """

    def __init__(self, weight: View, b: Any, a: Any, scale: float, dtype: str):
        super().__init__(weight, dtype)
        self.b, self.a, self.scale = b, a, scale

    def computed(self, first: int, last: int) -> Any:
        base = super().computed(first, last).float()
        return base + (self.b[first:last] @ self.a) * self.scale
