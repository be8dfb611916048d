"""Adapters of a training: as a checkpoint of it, and as peft's directory."""

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtune.checkpoint.hf_writing import copy_rest, write_file
from mindtune.checkpoint.lora import LORA, Pair, fused_tensors, loaded, pairs_of
from mindtune.checkpoint.megatron import MMCheckpoint, iteration_name, track
from mindtune.checkpoint.peft_adapter import CONFIG, WEIGHTS
from mindtune.checkpoint.tensors import view_of_tensor, with_views
from mindtune.checkpoint.writing import (
    check_apart,
    check_space,
    sync_tree,
    target_directory,
    write_ranks,
)
from mindtune.errors import UserError
from mindtune.files import write_json
from mindtune.formats.streaming import Progress
from mindtune.models.shape import ModelShape, model_shape, read_config
from mindtune.models.tensors import hf_shapes, tensors_of

if TYPE_CHECKING:
    from torch import Tensor

RANK = "mp_rank_00"


def save_adapters(
    save_dir: str | Path,
    iteration: int,
    modules: "Mapping[str, tuple[Tensor, ...]]",
    config: dict[str, Any],
    *,
    lora: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the adapters of a training as `save_dir/iter_NNNNNNN`, as MindSpeed-MM does at one rank.

    modules: name -> A and the Bs, see `mindtune.checkpoint.lora.fused_tensors`. lora: the section
    `train.lora`, which the file holds as well, as it holds the entries of `extra`. Everything else is
    as with `save_trained`.
    """
    shape = model_shape(config)
    views = {name: tuple(map(view_of_tensor, given)) for name, given in modules.items()}
    tree = {
        "checkpoint_version": 3.0,
        "iteration": iteration,
        "model": fused_tensors(views, shape),
        LORA: dict(lora),
        **with_views(dict(extra or {})),
    }
    directory = Path(save_dir) / iteration_name(iteration)
    with target_directory(directory) as temporary:
        write_ranks(temporary, {RANK: tree}, progress=progress, sync=True)
        sync_tree(temporary)
    track(save_dir, iteration)
    return directory


def load_adapters(
    save_dir: str | Path, config: dict[str, Any], iteration: int | None = None
) -> "dict[str, tuple[Tensor, Tensor]]":
    """Published name of a weight -> its A and B, of a checkpoint with adapters, in float32.

    Parts of a Megatron module share A, and have equal copies of it.

    Raises
    ------
    UserError: it is a checkpoint of something else, or of another model's adapters.
    """
    shape = model_shape(config)
    with MMCheckpoint(save_dir, iteration) as mm:
        if not mm.is_lora:
            raise UserError(f"{mm.directory} holds a whole model, and no adapters")
        found = {
            name: (loaded(pair.a), loaded(pair.b)) for name, pair in pairs_of(mm, shape).items()
        }
        mm.check()
    return found


def export_adapter(
    save_dir: Path, hf_dir: Path, out_dir: Path, iteration: int | str | None = None
) -> None:
    """Write the adapters of a training as a directory that peft loads onto the model `hf_dir`.

    Beside them is all of `hf_dir` that is no weight. The directory appears whole, by rename.

    Raises
    ------
    UserError: the checkpoint has none, or those of another model.
    """
    config = read_config(hf_dir)
    shape = model_shape(config, str(hf_dir / "config.json"))
    with ExitStack() as stack:
        mm = stack.enter_context(MMCheckpoint(save_dir, iteration))
        check_apart(out_dir, hf_dir, save_dir)
        if not mm.is_lora:
            raise UserError(
                f"{mm.directory} holds a whole model, and no adapters: there is none to export"
            )
        pairs = pairs_of(mm, shape)
        views = {}
        for name, pair in pairs.items():
            module = f"base_model.model.{_newest_name(name, shape).removesuffix('.weight')}"
            views[f"{module}.lora_A.weight"] = pair.a
            views[f"{module}.lora_B.weight"] = pair.b
        with target_directory(out_dir) as temporary:
            check_space(temporary, sum(view.nbytes for view in views.values()))
            copy_rest(hf_dir, temporary)
            write_json(temporary / CONFIG, _peft_config(mm, pairs, shape, hf_dir))
            write_file(temporary / WEIGHTS, views)
            mm.check()


def _peft_config(
    mm: MMCheckpoint, pairs: Mapping[str, Pair], shape: ModelShape, hf_dir: Path
) -> dict[str, Any]:
    """adapter_config.json: what it takes to load the adapters; peft knows the rest."""
    first = next(iter(pairs.values()))
    rank = first.a.shape[0]
    said = mm.beside(LORA)
    alpha = round(first.scale * rank, 6)
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": str(hf_dir),
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": said.get("dropout", mm.arguments.get("lora_dropout", 0.0)),
        "target_modules": targets({name.removesuffix(".weight") for name in pairs}, shape),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_dora": False,
        "use_rslora": False,
        "modules_to_save": None,
        "inference_mode": True,
    }


def targets(modules: Collection[str], shape: ModelShape) -> list[str]:
    """peft's target_modules: the shortest ends of names that mean these modules and no other.

    modules: published names.
    """
    others = {
        name.removesuffix(".weight") for name in hf_shapes(shape) if name.endswith(".weight")
    } - {*modules}
    found = set()
    for module in modules:
        parts = module.split(".")
        ends = (".".join(parts[-length:]) for length in range(1, len(parts)))
        unique = (
            end
            for end in ends
            if not end.isdigit() and not any(f".{other}".endswith(f".{end}") for other in others)
        )
        found.add(next(unique, None) or _newest_name(module, shape))
    return sorted(found)


def _newest_name(name: str, shape: ModelShape) -> str:
    """The name that today's transformers gives a published tensor or module."""
    # A family's longest published beginning counts: "" or "model." also begins others.
    for newer, published in sorted(tensors_of(shape).renamed, key=lambda pair: -len(pair[1])):
        if name.startswith(published):
            return newer + name.removeprefix(published)
    return name
