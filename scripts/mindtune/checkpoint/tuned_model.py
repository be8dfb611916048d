"""A model that was trained elsewhere, to be compared with its base: a whole one, or an adapter."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mindtune.checkpoint.huggingface import INDEX, HFCheckpoint
from mindtune.checkpoint.model_directory import (
    NEEDED,
    PROCESSOR,
    PROCESSOR_OF_5,
    processor_problems,
    read_small,
    shape_of,
    weight_problems,
)
from mindtune.checkpoint.peft_adapter import CONFIG, WEIGHTS, is_adapter, open_pairs
from mindtune.errors import UserError
from mindtune.models.shape import ModelShape, model_shape

KEY = "tuned_model"
TRACKER = "latest_checkpointed_iteration.txt"
# Names that newer transformers give a model's sizes make no other model of it, nor does a copy of the
# embedding as its output.
_NO_SIZE = ("tied",)


def has_processor(path: Path) -> bool:
    """Whether a model's directory has a whole tokenizer and image processor of its own.

    Trainings often save none of it, or the tokenizer alone; the base's is taken then.
    """
    needed = [name for name in NEEDED if name not in ("config.json", PROCESSOR)]
    return all((path / name).is_file() for name in needed) and any(
        (path / name).is_file() for name in (PROCESSOR, PROCESSOR_OF_5)
    )


def files_of(path: Path) -> list[Path]:
    """The files of a model or an adapter that its answers depend on, those that are there."""
    if is_adapter(path):
        return [path / CONFIG, path / WEIGHTS]
    names = ("config.json", INDEX, *(NEEDED if has_processor(path) else ()), PROCESSOR_OF_5)
    small = [path / name for name in dict.fromkeys(names) if (path / name).is_file()]
    return [*small, *sorted(path.glob("*.safetensors"))]


def state_of(path: Path) -> dict[str, str]:
    """The size and time stamp of each of these files, in words: another training has others."""
    found = {}
    for file in files_of(path):
        if file.is_file():
            stat = file.stat()
            when = datetime.fromtimestamp(stat.st_mtime_ns // 10**9, UTC).strftime("%F %T")
            found[str(file)] = f"{stat.st_size} bytes, {when}.{stat.st_mtime_ns % 10**9:09d}"
    return found


def tuned_problems(
    path: Path, base: Mapping[str, Any] | None, base_path: str, engine: str
) -> Iterator[str]:
    """What is wrong with a model that was trained elsewhere, a sentence for each.

    base: config.json of the base, None where it isn't there yet. base_path: of it, for the sentences.
    """
    said = f"{KEY} {path}"
    if not path.is_dir():
        yield (
            f"{KEY} is {path}, which is not a directory; give that of a Hugging Face model or of a peft "
            "adapter."
        )
        return
    shape = None
    try:
        shape = model_shape(dict(base), base_path) if base is not None else None
    except UserError:
        base = None  # there is a sentence about the base already
    try:
        if is_adapter(path):
            _check_adapter(path, shape, base_path)
        elif (path / TRACKER).is_file():
            yield (
                f"{said} is a Megatron checkpoint, as MindSpeed-MM saves it; convert it by `python "
                "scripts/convert_checkpoint.py mm-to-hf` and give the result."
            )
        else:
            yield from _model_problems(path, said, shape, base_path, engine)
    except (UserError, OSError) as error:
        yield f"{said} can't be used: {str(error).rstrip('.')}."


def _check_adapter(path: Path, shape: ModelShape | None, base_path: str) -> None:
    """
    Raises
    ------
    UserError: it can't be merged, or not into this base.
    """
    if (path / "config.json").is_file() and any(path.glob("model*.safetensors")):
        raise UserError(
            f"it has {CONFIG} beside a whole model, so it can't be known which is meant; give a directory "
            "of the one"
        )
    with ExitStack() as stack:
        # Without the base's sizes, which are not there yet, the merge itself checks them.
        if shape is not None:
            open_pairs(path, shape, base_path, stack)


def _model_problems(
    path: Path, said: str, shape: ModelShape | None, base_path: str, engine: str
) -> Iterator[str]:
    if not (path / "config.json").is_file():
        yield (
            f"{said} has neither config.json nor {CONFIG}, so it is no model and no adapter; give the "
            "directory that the training saved (often checkpoint-…)."
        )
        return
    config = read_small(path / "config.json")
    if config.get("quantization_config") is not None:
        yield (
            f"{said} has quantized weights (quantization_config in config.json), in which answers differ "
            "by the quantization, too; save the model in 16 or 32 bits."
        )
        return
    own = shape_of(config, path)
    if shape is not None and (other := _other_size(own, shape)):
        name, mine, bases = other
        what = "families" if name == "model_type" else "sizes"
        yield (
            f"{said} has the {name} {mine}, and its base {base_path} {bases}: they are models of different "
            f"{what}; give the base from which it was trained as sources.model."
        )
        return
    missing = list(weight_problems(path, said))
    yield from missing
    if not missing:
        with HFCheckpoint(path):
            pass  # it has all tensors that config.json implies, and no other
    if has_processor(path):
        names = (*NEEDED, PROCESSOR_OF_5)
        found = {name: read_small(path / name) for name in names if (path / name).is_file()}
        yield from processor_problems(found, said, engine)


def _other_size(own: ModelShape, base: ModelShape) -> tuple[str, Any, Any] | None:
    """The first size in which two models differ, with both values."""
    for field in fields(ModelShape):
        mine, bases = getattr(own, field.name), getattr(base, field.name)
        if field.name not in _NO_SIZE and mine != bases:
            return field.name, mine, bases
    return None
