"""What checkpoints of a training take on a disk."""

import math
from typing import TYPE_CHECKING

from mindtune.estimates.parameters import Parameters

if TYPE_CHECKING:
    from mindtune.settings.sections.train import Train

# Bytes of Adam's two moments: in fp32, and in 8 bits with a scale in fp32 for each 256.
MOMENTS = {"adamw": 8.0, "adamw_8bit": 2 * (1 + 4 / 256)}
# Bytes of a weight in a checkpoint, and of the fp32 one beside it that is trained.
WEIGHT = {"fp32": (4, 0), "bf16": (2, 4)}


def count_checkpoints(train: "Train", keep: str = "all") -> int:
    """How many checkpoints a training leaves. keep: the key `keep_checkpoints`."""
    if keep == "last":
        return 1
    return math.ceil(train.train_iters / train.save_interval)


def checkpoint_bytes(
    parameters: Parameters, train: "Train", precision: str = "bf16", optimizer: str = "adamw"
) -> int:
    """Bytes of the tensors in a training's checkpoint; its files have some more.

    That is the whole model with its frozen parts, or adapters alone; and with `train.save_optim` the moments
    of what is trained, and its fp32 weights where the model's own are not fp32. optimizer: the key
    `hf.optimizer`.
    """
    weight, own = WEIGHT[precision]
    trained = parameters.trained(train)
    held = trained if train.lora else parameters.all
    state = (own + MOMENTS[optimizer]) * trained if train.save_optim else 0
    return weight * held + math.floor(state)
