"""What any engine looks at before a training may move or write anything."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtune.errors import UserError
from mindtune.models.adapters import adapted, trained_parameters, words_of
from mindtune.models.shape import model_shape
from mindtune.models.tensors import hf_shapes, tensors_of

if TYPE_CHECKING:
    from mindtune.settings.sections.train import Train

# What numpy takes, and so transformers and Megatron.
HIGHEST_SEED = 2**32 - 1
# Bytes of Adam's two moments: in fp32, and in 8 bits with a scale in fp32 for each 256.
MOMENTS = {"adamw": 8.0, "adamw_8bit": 2 * (1 + 4 / 256)}
# Bytes of a weight in a checkpoint, and of the fp32 one beside it that is trained.
WEIGHT = {"fp32": (4, 0), "bf16": (2, 4)}


def check_seed(train: "Train", added: int = 0) -> None:
    """
    added: what the engine adds to the seed, at most.

    Raises
    ------
    UserError: the random generators take no such number.
    """
    highest = HIGHEST_SEED - added
    if not 0 <= train.seed <= highest:
        raise UserError(
            f"train.seed is {train.seed}, but must be from 0 to {highest}; write another one."
        )


def check_room(
    save_dir: Path,
    config: Mapping[str, Any],
    train: "Train",
    precision: str,
    optimizer: str = "adamw",
) -> None:
    """
    optimizer: the key `hf.optimizer`.

    Raises
    ------
    UserError: the disk has no room for a single checkpoint.
    """
    needed = checkpoint_bytes(config, train, precision, optimizer)
    place = save_dir.resolve()
    there = next(path for path in (place, *place.parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise UserError(
            f"a checkpoint of this training takes {needed:,} bytes, but the disk of {there} has "
            f"{free:,} left; free some, or make {save_dir} a link to a directory on a larger disk."
        )


def checkpoint_bytes(
    config: Mapping[str, Any],
    train: "Train",
    precision: str,
    optimizer: str = "adamw",
) -> int:
    """Bytes of the tensors in a training's checkpoint; its files have some more.

    That is the whole model with its frozen parts, or adapters alone; and with `train.save_optim` the moments
    of what is trained, and its fp32 weights where the model's own are not fp32.
    """
    weight, own = WEIGHT[precision]
    shape = model_shape(dict(config))
    trained = trained_parameters(shape, train)
    held = trained if train.lora else sum(map(math.prod, hf_shapes(shape).values()))
    state = (own + MOMENTS[optimizer]) * trained if train.save_optim else 0
    return weight * held + math.floor(state)


def check_adapters(config: Mapping[str, Any], train: "Train") -> None:
    """
    config: content of config.json.

    Raises
    ------
    UserError: the model has no such modules that are trained, or none so large as the rank.
    """
    lora, shape = train.lora, model_shape(dict(config))
    if lora is None:
        return
    family = tensors_of(shape)
    there = [word for words in words_of(family) for word in words]
    for word in lora.target_modules:
        if word not in there:
            raise UserError(
                f"train.lora.target_modules has {word}, but {family.name} has no such module; it has "
                f"{', '.join(there)}."
            )
    modules = adapted(shape, train)
    if not modules:
        raise UserError(
            f"train.lora.target_modules is {', '.join(lora.target_modules)}, but all of these are "
            "frozen by train.freeze_vision_encoder or train.freeze_vision_projector, so nothing would be "
            "trained; set it to false, or name modules of the language model."
        )
    shapes = hf_shapes(shape)
    most = max(min(module.sides(shapes)) for module in modules)
    if lora.rank > most:
        raise UserError(
            f"train.lora.rank is {lora.rank}, but no adapted module of this model has more than "
            f"{most} inputs or outputs; write at most {most}."
        )
