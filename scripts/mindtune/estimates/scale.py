"""What a configuration will take: disk, memory, jobs, and hours of accelerators.

Sizes are computed from the shapes of the model and were held against real files; time can't
be computed, and comes from a training that ran (`ms_per_iteration` in its loss.csv).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mindtune.estimates.checkpoints import checkpoint_bytes, count_checkpoints
from mindtune.estimates.memory import Memory, shares_of, step_of, training_memory
from mindtune.estimates.parameters import Parameters

if TYPE_CHECKING:
    from mindtune.settings import Configuration, Settings
    from mindtune.settings.sections.train import Train

# Bytes of train2017, as a zip and as files.
COCO_ZIP, COCO_UNPACKED = 19.3e9, 19.1e9


@dataclass(frozen=True)
class Need:
    """What a whole run takes; bytes, numbers and hours.

    model: a Hugging Face or mm copy. checkpoint: one of a training, whose number is
    `checkpoints`. disk: at the end, with all experiments. device: weights, gradients and
    optimizer in bf16 training, over all devices of one training, without activations. memory: of the
    training that takes the most, part by part; None where the model's shape is not known. jobs: of
    a cluster. device_hours: None without a measured time per iteration.
    """

    experiments: int
    trained: int
    model: float
    checkpoint: float
    checkpoints: int
    disk: float
    device: float
    memory: Memory | None
    jobs: int
    device_hours: float | None


def estimate(
    configuration: "Configuration", parameters: Parameters, ms_per_iteration: float | None = None
) -> Need:
    """What all experiments of a configuration take, with a model of so many parameters."""
    common = configuration.typed()
    experiments = [configuration.typed(name) for name in configuration.experiments]
    precision = "bf16" if common.engine == "mindspeed" else common.hf.precision
    model = (2 if precision == "bf16" else 4) * parameters.all
    trainings = [settings.train for settings in experiments]
    saved = [count_checkpoints(train, common.keep_checkpoints) for train in trainings]
    if common.engine == "mindspeed":
        optimizer, devices = "adamw", common.mindspeed.npus_per_node * common.mindspeed.nodes
    else:
        optimizer, devices = common.hf.optimizer, common.hf.devices * common.hf.nodes
    sizes = [checkpoint_bytes(parameters, train, precision, optimizer) for train in trainings]
    scopes = {
        stage: len({configuration.scope(name, stage) for name in configuration.experiments})
        for stage in ("data", "mm", "before")
    }
    controls = len(common.compare.controls)
    iterations = sum(train.train_iters for train in trainings)
    most = max(device_bytes(parameters, train) for train in trainings)
    return Need(
        experiments=len(trainings),
        trained=max(parameters.trained(train) for train in trainings),
        model=model,
        checkpoint=max(sizes),
        checkpoints=sum(saved),
        disk=pictures(common)
        + model * (1 + scopes["mm"] + len(trainings))
        + sum(size * number for size, number in zip(sizes, saved, strict=True)),
        device=most,
        memory=max(
            (
                training_memory(
                    parameters.shape,
                    parameters.all,
                    one.train,
                    precision,
                    step_of(one),
                    shares_of(one),
                )
                for one in experiments
                if parameters.shape
            ),
            key=lambda memory: memory.all,
            default=None,
        ),
        # A control is answered by the base and by each experiment's model.
        jobs=sum(scopes.values())
        + 3 * len(trainings)
        + controls * (scopes["before"] + len(trainings)),
        device_hours=None
        if ms_per_iteration is None
        else iterations * ms_per_iteration / 3.6e6 * devices,
    )


def device_bytes(parameters: Parameters, train: "Train") -> float:
    """Weights (2), gradients (4) and optimizer (12 bytes) of a training in bf16."""
    trained = parameters.trained(train)
    return 2 * (parameters.all + (trained if train.lora else 0)) + 16 * trained


def pictures(common: "Settings") -> float:
    """Bytes of the pictures that are fetched; a user's own and drawn ones count nothing."""
    source = common.sources.images
    if source.use in ("demo", "path"):
        return 0
    return COCO_ZIP + (0 if source.unpack is False else COCO_UNPACKED)


def in_units(size: float) -> str:
    """Bytes in MB, GB or TB, with three digits."""
    for unit, name in ((1e12, "TB"), (1e9, "GB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size / 1e6:.3g} MB"
