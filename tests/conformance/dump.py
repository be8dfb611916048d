"""Run by the framework's Python: what its own classes feed the training with.

    dump.py QUESTIONS ANSWERS [the arguments of pretrain_vlm.py]

QUESTIONS is a JSON file:
    batches: how many of the first batches to write, as ANSWERS/00000.npz and so on.
    rates: a list of changes to Megatron's arguments; for each the learning rates after 0, 1, …
        iterations, by its scheduler.
    orders: a list of [samples, micro batch size, consumed, wanted, rank, data parallel size]; for each
        the first indices, by MindSpeed-MM's sampler.
The last two are written to ANSWERS/answers.json.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy
from booting import booted  # patches Megatron, hence before it
from megatron.core import mpu
from megatron.training.training import get_optimizer_param_scheduler
from mindspeed_mm.data import build_mm_dataloader, build_mm_dataset
from mindspeed_mm.data.data_utils.utils import build_iterations
from mindspeed_mm.data.dataloader.sampler import BaseRandomBatchSampler


def batches(args):
    """The training batches, as pretrain_vlm.py's provider makes them."""
    data = args.mm.data
    loader = build_mm_dataloader(
        build_mm_dataset(data.dataset_param),
        data.dataloader_param,
        process_group=mpu.get_data_parallel_group(),
        dataset_param=data.dataset_param,
        consumed_samples=0,
    )
    return build_iterations(loader)[0]


def rates(args, changes: dict) -> list[float]:
    """Learning rates after 0, 1, … train_iters iterations."""
    for name, value in changes.items():
        setattr(args, name, value)
    args.lr_decay_iters = None  # Megatron keeps train_iters here when it is asked first
    group = {"lr": 0.0, "weight_decay": 0.0}
    scheduler = get_optimizer_param_scheduler(SimpleNamespace(param_groups=[group]))
    found = [group["lr"]]
    for _ in range(args.train_iters):
        scheduler.step(increment=args.global_batch_size)
        found.append(group["lr"])
    return found


def order(
    samples: int, micro_batch_size: int, consumed: int, wanted: int, rank: int, ranks: int
) -> list[int]:
    """The first indices of samples on one rank, over as many epochs as it takes."""
    sampler = BaseRandomBatchSampler(
        range(samples), micro_batch_size, num_replicas=ranks, rank=rank, consumed_samples=consumed
    )
    found = []
    while len(found) < wanted:
        for batch in sampler:
            found += batch
    return found[:wanted]


def main() -> None:
    questions, answers = json.loads(Path(sys.argv.pop(1)).read_text()), Path(sys.argv.pop(1))
    args = booted()
    answers.mkdir()
    for number, batch in zip(range(questions["batches"]), batches(args)):  # noqa: B905 - endless
        numpy.savez(answers / f"{number:05d}.npz", **{key: t.numpy() for key, t in batch.items()})
    found = {
        "rates": [rates(args, changes) for changes in questions["rates"]],
        "orders": [order(*asked) for asked in questions["orders"]],
    }
    (answers / "answers.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
