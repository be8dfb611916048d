"""What a run writes and holds, from the sizes of its model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtune.files import read_json
from mindtune.models.shape import model_shape
from mindtune.scale import count_checkpoints, count_parameters

if TYPE_CHECKING:
    from mindtune.settings.sections.train import Train

BF16 = 2  # bytes a weight, in training and in the published models
OPTIMIZER = 12  # bytes a trained parameter: an fp32 copy and Adam's two moments
GRADIENT = 4  # bytes a trained parameter: gradients are summed in fp32
PIXEL = 2 * 3 * 4  # bytes a pixel of pixel_values: every picture is two frames, three fp32 colours


@dataclass(frozen=True)
class Parameters:
    """How many parameters a model has, and of these are trained, at most where `exact` is false."""

    total: int
    trained: int
    exact: bool = True


def parameters(config: Mapping[str, Any], train: "Train") -> Parameters:
    """Of a config.json and the keys of `train` that freeze parts of it."""
    counted = count_parameters(model_shape(config))
    return Parameters(counted.all, counted.trained(train))


def known_parameters(experiment: Mapping[str, Any]) -> Parameters | None:
    """Of an experiment of `doctor_settings`; None where nothing is known of its model yet."""
    path = Path(experiment["config"])
    if path.is_file():
        return parameters(read_json(path), experiment["train"])
    if experiment["weight_bytes"]:
        total = experiment["weight_bytes"] // BF16
        return Parameters(total, total, exact=False)
    return None


def kept(experiment: Mapping[str, Any]) -> int:
    """How many checkpoints the training of an experiment of `doctor_settings` leaves."""
    return count_checkpoints(experiment["train"], experiment["keep_checkpoints"])


def optimizer_bytes(known: Parameters, experiment: Mapping[str, Any]) -> int:
    """Optimizer states in all checkpoints of a training."""
    train: Train = experiment["train"]
    return kept(experiment) * OPTIMIZER * known.trained if train.save_optim else 0


def experiment_bytes(known: Parameters, experiment: Mapping[str, Any]) -> int:
    """What an experiment writes: mm checkpoint, checkpoints of the training, exported model."""
    train: Train = experiment["train"]
    in_checkpoints = known.trained if train.lora else known.total
    weights = BF16 * (2 * known.total + kept(experiment) * in_checkpoints)
    return weights + optimizer_bytes(known, experiment)


def npu_bytes(known: Parameters, model_parallel: int, data_parallel: int) -> float:
    """On each NPU, without activations: weights, gradients, and its part of the optimizer's state."""
    shared = (
        BF16 * known.total + GRADIENT * known.trained + OPTIMIZER * known.trained / data_parallel
    )
    return shared / model_parallel


def shared_memory_bytes(
    workers: int, npus: int, micro_batch_size: int, image_resolution: int
) -> int:
    """What loaders hold in /dev/shm at a time: two micro-batches a worker, a picture a sample."""
    return 2 * workers * npus * micro_batch_size * image_resolution * PIXEL
