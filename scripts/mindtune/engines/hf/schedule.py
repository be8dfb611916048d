"""MindSpeed-MM's order of samples."""

from collections.abc import Iterator

import torch


def sample_order(total: int, micro_batch_size: int, consumed: int) -> Iterator[int]:
    """Endless indices of samples, as MindSpeed-MM's BaseRandomBatchSampler draws them.

    Each epoch is a permutation seeded with its number and nothing else; the samples that
    don't fill a last micro batch are left out (here on one data-parallel rank). It goes on
    after `consumed` samples exactly where it stood.
    """
    usable = total // micro_batch_size * micro_batch_size
    epoch, offset = divmod(consumed, usable)
    while True:
        generator = torch.Generator()
        generator.manual_seed(epoch)
        yield from torch.randperm(usable, generator=generator).tolist()[offset:]
        epoch, offset = epoch + 1, 0
