"""LoRA adapters in peft's form, merged into a Hugging Face model: W + scale * B A.

An adapter is a directory with adapter_config.json and adapter_model.safetensors, as LLaMA-Factory,
ms-swift and unsloth save it. Its tensors are `base_model.model.<module>.lora_A.weight` (r x inputs) and
`….lora_B.weight` (outputs x r), modules named as transformers names them; scale is lora_alpha / r, or
lora_alpha / sqrt(r) with use_rslora (peft, tuners/lora/layer.py). Which base it was trained on shows in
the shapes only: `base_model_name_or_path` is a path of another machine more often than not.

The merge is computed in float32 and rounded once to the base's dtype. A program that asks with the
adapter beside the weights computes in their dtype, so its answers may differ in the last bit.
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mindtune.checkpoint.convert import GIGABYTE
from mindtune.checkpoint.hf_writing import (
    copy_rest,
    distribution,
    original_files,
    set_dtype,
    write_shards,
)
from mindtune.checkpoint.huggingface import HFCheckpoint
from mindtune.checkpoint.lora import Pair, merged_with
from mindtune.checkpoint.writing import check_apart, check_space, target_directory
from mindtune.errors import UserError
from mindtune.files import read_json
from mindtune.formats.safetensors_io import open_safetensors
from mindtune.formats.views import View
from mindtune.models.shape import ModelShape
from mindtune.models.tensors import hf_shapes, tensors_of

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ELSEWHERE = (
    "merge it with the program that made it (LLaMA-Factory: llamafactory-cli export, ms-swift: swift "
    "export --merge_lora true), and give the merged model"
)
_TENSOR = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight")
_FLOATS = ("float64", "float32", "float16", "bfloat16")
# What peft can do and this merge can't, with the values that mean that it wasn't done.
_UNSET = (None, False, [], {}, "")
_OTHER_FORMS = {
    "use_dora": "DoRA", "use_qalora": "QALoRA", "fan_in_fan_out": "transposed weights",
    "layer_replication": "repeated layers", "target_parameters": "adapted parameters",
    "modules_to_save": "whole modules", "trainable_token_indices": "trained tokens",
    "alora_invocation_tokens": "activated LoRA", "lora_bias": "biases", "megatron_config": "Megatron's modules",
    "arrow_config": "Arrow",
}  # fmt: skip
# The others, such as PiSSA, OLoRA and CorDA, change the base's weights before the training.
_PLAIN_BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal")


def is_adapter(path: Path) -> bool:
    """Whether a directory holds an adapter."""
    return (path / CONFIG).is_file()


def merge_adapter(
    adapter_dir: Path,
    base_dir: Path,
    merged_dir: Path,
    *,
    widen: bool = False,
    max_shard_bytes: int = 4 * GIGABYTE,
) -> int:
    """Write `base_dir` with an adapter's changes as the Hugging Face model `merged_dir`.

    All that is no weight is the base's. The directory appears whole, by rename. widen: write float32
    where the adapter is, as for an adapter that was trained here; otherwise weights keep the base's
    dtype. Returns how many weights were changed.

    Raises
    ------
    UserError: the adapter is none that can be merged, or not one of this base.
    """
    with ExitStack() as stack:
        base = stack.enter_context(HFCheckpoint(base_dir))
        check_apart(merged_dir, base_dir, adapter_dir)
        pairs = open_pairs(adapter_dir, base.shape, str(base_dir), stack)
        for name in pairs:
            if (dtype := base.tensors[name].dtype) not in _FLOATS:
                raise UserError(f"{base_dir}: {name} is {dtype}; nothing can be merged into it")
        tensors = merged_with(base.tensors, base.shape, pairs, widen)
        groups = distribution(
            tensors, original_files(base_dir, tensors_of(base.shape)), max_shard_bytes
        )
        with target_directory(merged_dir) as temporary:
            check_space(temporary, sum(view.nbytes for view in tensors.values()))
            copy_rest(base_dir, temporary)
            set_dtype(temporary / "config.json", base.config, tensors)
            write_shards(temporary, groups, workers=1, progress=None, sync=False)
        return len(pairs)


def open_pairs(
    adapter_dir: Path, shape: ModelShape, base: str, stack: ExitStack
) -> dict[str, Pair]:
    """Published name of a weight -> its pair; the file stays open on `stack`.

    shape: of the base. base: for the sentences.

    Raises
    ------
    UserError: the adapter is none that can be merged, or not one of this base.
    """
    config = read_adapter_config(adapter_dir)
    path = adapter_dir / WEIGHTS
    if not path.is_file():
        raise UserError(
            f"{adapter_dir} has {CONFIG}, but no {WEIGHTS}; save the adapter as safetensors "
            "(save_pretrained), or give the checkpoint that is whole"
        )
    file, views = open_safetensors(path)
    stack.callback(file.close)
    modules: dict[str, dict[str, View]] = {}
    for name, view in views.items():
        match = _TENSOR.fullmatch(name)
        if not match or view.dtype not in _FLOATS or len(view.shape) != 2:
            raise UserError(f"{path} has {name}, which is no matrix of plain LoRA; {ELSEWHERE}")
        if match[2] in modules.setdefault(match[1], {}):
            raise UserError(f"{path} has two adapters for {match[1]}; {ELSEWHERE}")
        modules[match[1]][match[2]] = view
    if not modules:
        raise UserError(f"{path} has no tensors, so it changes nothing; save the adapter again")
    return dict(_fitting(modules, config, shape, path, base))


def _fitting(
    modules: Mapping[str, Mapping[str, View]],
    config: Mapping[str, Any],
    shape: ModelShape,
    path: Path,
    base: str,
) -> Iterator[tuple[str, Pair]]:
    family, shapes = tensors_of(shape), hf_shapes(shape)
    found = set()
    for module, matrices in modules.items():
        if len(matrices) != 2:
            raise UserError(f"{path} has half an adapter for {module}; copy the file again")
        a, b = matrices["A"], matrices["B"]
        name = f"{family.published_name(module)}.weight"
        wanted = shapes.get(name)
        if wanted is None:
            raise UserError(
                f"{path} changes {module}, which {base} does not have; it is an adapter of another model: "
                "give its own base as sources.model"
            )
        if name in found:
            raise UserError(f"{path} has two adapters for {name}; {ELSEWHERE}")
        found.add(name)
        if (b.shape[0], a.shape[1]) != tuple(wanted):
            raise UserError(
                f"{path} changes {module} by a matrix of {b.shape[0]} x {a.shape[1]}, but in {base} it is "
                f"{' x '.join(map(str, wanted))}; it is an adapter of another model: give its own base as "
                "sources.model"
            )
        if a.shape[0] != b.shape[1] or a.shape[0] != _rank(config, module, a.shape[0]):
            raise UserError(
                f"{path} has the ranks {a.shape[0]} and {b.shape[1]} for {module}, and {CONFIG} says "
                f"{_rank(config, module, a.shape[0])}; they are of different trainings"
            )
        yield name, Pair(a, b, _scale(config, module, a.shape[0]))


def _rank(config: Mapping[str, Any], module: str, default: int) -> Any:
    return _of_module(config.get("rank_pattern"), module, config.get("r", default))


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    alpha = _of_module(config.get("alpha_pattern"), module, config.get("lora_alpha"))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _of_module(pattern: Any, module: str, default: Any) -> Any:
    """What a pattern of peft's says of a module: the first key that its name ends in."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


def read_adapter_config(adapter_dir: Path) -> dict[str, Any]:
    """adapter_config.json of an adapter that can be merged.

    Raises
    ------
    UserError: it is of another kind.
    """
    path = adapter_dir / CONFIG
    config = read_json(path)
    if not isinstance(config, dict):
        raise UserError(f"{path} is not a JSON object; copy it again")
    if config.get("peft_type") != "LORA":
        raise UserError(
            f"{path} has the peft_type {config.get('peft_type')}, but only LORA can be merged; {ELSEWHERE}"
        )
    for key, what in _OTHER_FORMS.items():
        if config.get(key) not in _UNSET:
            raise UserError(f"{path} has {key} ({what}), which can't be merged here; {ELSEWHERE}")
    beginning = config.get("init_lora_weights", True)
    if beginning not in _PLAIN_BEGINNINGS:
        raise UserError(
            f"{path} has init_lora_weights {beginning}, which changed the base's weights too; {ELSEWHERE}"
        )
    if config.get("bias", "none") != "none":
        raise UserError(
            f"{path} has bias {config['bias']}, which can't be merged here; {ELSEWHERE}"
        )
    alphas = [config.get("lora_alpha"), *_values(config, "alpha_pattern", path)]
    _values(config, "rank_pattern", path)
    for alpha in alphas:
        if (
            isinstance(alpha, bool)
            or not isinstance(alpha, int | float)
            or not math.isfinite(alpha)
        ):
            raise UserError(
                f"{path} has the lora_alpha {alpha}, but it must be a number; copy it again"
            )
    return config


def _values(config: Mapping[str, Any], key: str, path: Path) -> list:
    """The values of a pattern, whose keys are regular expressions."""
    pattern = config.get(key) or {}
    if not isinstance(pattern, dict):
        raise UserError(f"{path}: {key} is not an object; copy it again")
    for expression in pattern:
        try:
            re.compile(expression)
        except re.error as error:
            raise UserError(
                f"{path}: {key} has {expression}, which is no regular expression"
            ) from error
    return list(pattern.values())
