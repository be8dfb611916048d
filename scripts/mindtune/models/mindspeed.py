"""What MindSpeed-MM ships for a family, and calls what belongs to it.

A family's module has FRAMEWORK, a `Framework`, or None where MindSpeed-MM doesn't know the family.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtune.errors import UserError
from mindtune.models import FAMILIES, room
from mindtune.models.shape import ModelShape

if TYPE_CHECKING:
    from mindtune.settings.sections import Settings

NAME = "mindspeed"  # the engine's


@dataclass(frozen=True)
class Framework:
    """
    examples: the directory of the shipped files, below the framework's root. files: `data`, `model` and
    `inference` -> the name of the file, with `{size}`. size: what the nearest shipped size is called.
    tokens: the ids of special tokens in the published models, which config.json may leave out. converter,
    picture_plugin: names of the framework's classes for checkpoints and pictures. fill: puts into a
    `--mm-model` file, which it changes, all that follows from config.json, its sizes, and the vision and
    language layers of each stage. flash_attention: whether `--use-flash-attn` computes what the model is.
    tools: whether mm-convert, both ways, and inference_vlm.py work. reads: for JSON files of a model's directory, keys without which the framework's transformers (4.45.0)
    can't read them, with the values with which it does.
    """

    examples: Path
    files: Mapping[str, str]
    size: Callable[[ModelShape], str]
    tokens: Mapping[str, int]
    converter: str
    picture_plugin: str
    fill: Callable[[dict, Mapping[str, Any], ModelShape, Sequence[int], Sequence[int]], None]
    flash_attention: bool = True
    tools: bool = True
    reads: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


UNKNOWN = "MindSpeed-MM 2.0.0 doesn't know {}"


def framework_of(model_type: str) -> Framework:
    """
    Raises
    ------
    UserError: the framework doesn't know the family.
    """
    framework = room(model_type, "mindspeed").FRAMEWORK
    if framework is None:
        raise UserError(f"{UNKNOWN.format(FAMILIES[model_type])}; write `engine: hf`.")
    return framework


def unknown_problems(model_type: str, settings: "Settings") -> Iterator[str]:
    """A sentence where settings of an experiment want a framework that doesn't know the family of its model."""
    if room(model_type, "mindspeed").FRAMEWORK is not None:
        return
    unknown = UNKNOWN.format(FAMILIES[model_type])
    if settings.engine == NAME:
        yield f"engine is {NAME}, but {unknown}; write `engine: hf`."
    elif settings.answer.engine == NAME:
        yield f"answer.engine is {NAME}, but {unknown}; write `answer.engine: hf`, or vllm."
    elif settings.mindspeed.converter != "mindtune":
        yield (
            f"mindspeed.converter is {settings.mindspeed.converter}, but {unknown}; write "
            "`converter: mindtune`."
        )


def tool_problems(
    model_type: str, *, converter: str | None = None, inference: str | None = None
) -> Iterator[str]:
    """Which of the tutorial's own tools can't be used for a family; converter, inference: keys of
    `mindspeed`, as far as they are chosen."""
    if framework_of(model_type).tools:
        return
    for key, chosen, tool, instead in (
        ("converter", converter, "mm-convert", "mindtune"),
        ("inference", inference, "script", "pipeline"),
    ):
        if chosen == tool:
            yield (
                f"mindspeed.{key} is {tool}, which in MindSpeed-MM 2.0.0 doesn't work for "
                f"{FAMILIES[model_type]}; write {instead}."
            )
