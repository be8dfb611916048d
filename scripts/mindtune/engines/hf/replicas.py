"""Copies of the model that train together: each takes its share of a global batch.

Gradients are summed over the copies before each step, which all then take alike. One copy needs
nothing of it. `mindtune.engines.hf.group` starts the processes.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from mindtune.engines.hf.sharding import is_shared

if TYPE_CHECKING:
    from mindtune.settings.sections.hf import Hf

BACKENDS = {"cpu": "gloo", "cuda": "nccl", "npu": "hccl", "xpu": "xccl"}
# By these accelerate would take the training into its own hands.
LAUNCHER = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "PMI_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_SIZE",
)
# Numbers that are summed in one message.
BUCKET = 1 << 25


def replica_count(machine: "Hf") -> int:
    """How many copies of the model the `hf` section asks for."""
    return machine.devices * machine.nodes


def forget_launcher() -> None:
    """Leave a training to ourselves that is one process, or has met the others: the variables may be those
    of a pod or a batch system."""
    for name in LAUNCHER:
        os.environ.pop(name, None)


@dataclass(frozen=True)
class Replicas:
    """The copy of this process, counted from 0, and how many there are."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @classmethod
    def join(cls, device: torch.device, minutes: int) -> "Replicas":
        """Meet the other processes that torchrun has started; minutes: the longest wait for one."""
        distributed.init_process_group(BACKENDS[device.type], timeout=timedelta(minutes=minutes))
        joined = cls(distributed.get_rank(), distributed.get_world_size())
        forget_launcher()
        return joined

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all copies, the same bits in each; the tensor itself is not to be used again."""
        if self.count > 1:
            distributed.all_reduce(tensor)
        return tensor

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace the gradients by their sum over all copies.

        One that a copy has none for, such as the vision tower's where it had no picture, counts as zero.
        """
        if self.count == 1:
            return
        trained = [one for one in parameters if one.requires_grad]
        for one in trained:
            if one.grad is None:
                kind = getattr(one, "grad_dtype", None) or one.dtype
                one.grad = torch.zeros_like(one, dtype=kind)
        found = (one.grad for one in trained)
        gradients = [gradient for gradient in found if not is_shared(gradient)]  # summed already
        for bucket in buckets(gradients):
            together = torch.cat([gradient.reshape(-1) for gradient in bucket])
            self.sum(together)
            parts = together.split([gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def most(self, number: int) -> int:
        """The greatest of the copies' numbers."""
        return max(self.gathered(number))

    def meet(self) -> None:
        """Wait until all copies are here."""
        if self.count > 1:
            distributed.barrier()

    def gathered(self, value: Any) -> list[Any]:
        """Each copy's value, in the order of ranks."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, value)
        return found


def buckets(gradients: Iterable[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Neighbours of one type, together of at most `BUCKET` numbers; a larger one goes alone."""
    bucket: list[torch.Tensor] = []
    held = 0
    for gradient in gradients:
        full = held + gradient.numel() > BUCKET
        if bucket and (full or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, held = [], 0
        bucket.append(gradient)
        held += gradient.numel()
    if bucket:
        yield bucket
