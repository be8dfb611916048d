"""What any engine looks at before a training may move or write anything."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtune.errors import UserError
from mindtune.estimates.checkpoints import checkpoint_bytes
from mindtune.estimates.parameters import count_parameters
from mindtune.models.adapters import adapted, words_of
from mindtune.models.shape import model_shape
from mindtune.models.tensors import hf_shapes, tensors_of

if TYPE_CHECKING:
    from mindtune.settings.sections.train import Train

# What numpy takes, and so transformers and Megatron.
HIGHEST_SEED = 2**32 - 1


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
    parameters = count_parameters(model_shape(dict(config)))
    needed = checkpoint_bytes(parameters, train, precision, optimizer)
    place = save_dir.resolve()
    there = next(path for path in (place, *place.parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise UserError(
            f"a checkpoint of this training takes {needed:,} bytes, but the disk of {there} has "
            f"{free:,} left; free some, or make {save_dir} a link to a directory on a larger disk."
        )


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
