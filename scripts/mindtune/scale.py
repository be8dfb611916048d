"""What a configuration will take: disk, memory, jobs, and hours of accelerators.

Sizes are computed from the shapes of the model and were held against real files; time can't
be computed, and comes from a training that ran (`ms_per_iteration` in its loss.csv).
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from mindtune.engines.checks import MOMENTS
from mindtune.memory import FP32, Memory, shares_of, step_of, training_memory
from mindtune.models.adapters import adapter_parameters
from mindtune.models.shape import ModelShape
from mindtune.models.tensors import hf_shapes, tensors_of
from mindtune.settings import SHARED, Configuration, Settings, load
from mindtune.settings.sections.train import Train

# Bytes of train2017, as a zip and as files.
COCO_ZIP, COCO_UNPACKED = 19.3e9, 19.1e9


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters of a model's parts. shape: of the model; without it nothing is known of adapters."""

    language: int
    vision: int
    projector: int
    shape: ModelShape | None = None

    @property
    def all(self) -> int:
        return self.language + self.vision + self.projector

    def trained(self, train: Train) -> int:
        """Those that a training changes: adapters, or all but what its `freeze_…` keys name."""
        if train.lora and self.shape:
            return adapter_parameters(self.shape, train)
        vision = 0 if train.freeze_vision_encoder else self.vision
        projector = 0 if train.freeze_vision_projector else self.projector
        return self.language + vision + projector


def count_parameters(shape: ModelShape) -> Parameters:
    """The parameters of a model of this shape."""
    family, counts = tensors_of(shape), Counter()
    for name, sides in hf_shapes(shape).items():
        counts[family.kind(name)] += math.prod(sides)
    return Parameters(**counts, shape=shape)


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


def count_checkpoints(train: Train, keep: str = "all") -> int:
    """How many checkpoints a training leaves. keep: the key `keep_checkpoints`."""
    if keep == "last":
        return 1
    return math.ceil(train.train_iters / train.save_interval)


def checkpoint_bytes(
    parameters: Parameters, train: Train, precision: str = "bf16", optimizer: str = "adamw"
) -> float:
    """A checkpoint of a training: all weights or adapters, and 12 bytes for each trained one to go on.

    In fp32 there is no second copy of the weights, and it is 8 bytes; with moments of 8 bits (the key
    `hf.optimizer`) 6 less.
    """
    width, own = (2, FP32) if precision == "bf16" else (4, 0)
    trained = parameters.trained(train)
    held = trained if train.lora else parameters.all
    extra = own + MOMENTS[optimizer]
    return width * held + (extra * trained if train.save_optim else 0)


def estimate(
    configuration: Configuration, parameters: Parameters, ms_per_iteration: float | None = None
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


def device_bytes(parameters: Parameters, train: Train) -> float:
    """Weights (2), gradients (4) and optimizer (12 bytes) of a training in bf16."""
    trained = parameters.trained(train)
    return 2 * (parameters.all + (trained if train.lora else 0)) + 16 * trained


LORA = {
    "rank": 16, "alpha": 32, "dropout": 0.0,
    "target_modules": ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"],
}  # fmt: skip
# The `hf` engine with one conversation of 1,024 tokens at a time, and with a packed pass.
PACKED = {"tokens_per_pass": 4096}
WAYS = (
    ("1 x 1,024", {}, "none"),
    ("packed, 4,096", PACKED, "none"),
    ("packed, 4,096", PACKED, "full"),
)


def memory_table(shapes: Mapping[str, ModelShape]) -> str:
    """A table of the memory of a device with the `hf` engine in bf16, in Markdown, for docs/scaling.md."""
    rows = [
        "| model | trained | tokens | recompute | weights | gradients | optimizer | activations | logits | in all |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, shape in shapes.items():
        parameters = count_parameters(shape)
        for trained, lora in (("all of the language model", None), ("LoRA, rank 16", LORA)):
            for tokens, hf, recompute in WAYS:
                train = {"micro_batch_size": 1, "seq_length": 1024, "lora": lora}
                settings = load({"hf": hf | {"recompute": recompute}, "train": train}).typed()
                step = step_of(settings)
                need = training_memory(shape, parameters.all, settings.train, "bf16", step)
                parts = (
                    need.weights, need.gradients, need.optimizer, need.activations, need.logits, need.all,
                )  # fmt: skip
                rows.append(
                    f"| {name} | {trained} | {tokens} | {recompute} | "
                    f"{' | '.join(map(in_units, parts))} |"
                )
    return "\n".join(rows)


def pictures(common: Settings) -> float:
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


def table(
    shapes: Mapping[str, ModelShape], configuration: Configuration, numbers: tuple[int, ...]
) -> str:
    """A table of sizes x numbers of experiments, in Markdown, for docs/scaling.md."""
    rows = [
        "| model | experiments | parameters | trained | model | one checkpoint | disk, all | on devices | jobs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, shape in shapes.items():
        parameters = count_parameters(shape)
        for number in numbers:
            first = configuration.typed()
            many = Configuration({SHARED: first, **{str(n): first for n in range(number)}})
            need = estimate(many, parameters)
            rows.append(
                f"| {name} | {number} | {parameters.all / 1e9:.2f}e9 "
                f"| {need.trained / 1e9:.2f}e9 | {in_units(need.model)} "
                f"| {in_units(need.checkpoint)} | {in_units(need.disk)} "
                f"| {in_units(need.device)} | {need.jobs} |"
            )
    return "\n".join(rows)
