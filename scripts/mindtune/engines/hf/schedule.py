"""MindSpeed-MM's order of samples."""

from collections.abc import Iterator

import torch


def sample_order(
    total: int, micro_batch_size: int, drawn: int, rank: int = 0, ranks: int = 1
) -> Iterator[int]:
    """Endless indices of samples, as MindSpeed-MM's BaseRandomBatchSampler draws them on a rank.

    Each epoch is a permutation seeded with its number and nothing else, of which the data parallel
    ranks take every sample in turn; what doesn't fill a last micro batch of a rank is left out. It
    goes on after `drawn` samples of this rank exactly where it stood. (The sampler itself counts
    the samples of all ranks when it is begun, and so loses its place where one rank's epoch has a micro
    batch more than another's.)

    total: samples, at least micro_batch_size x ranks.
    """
    usable = total // micro_batch_size * micro_batch_size
    counted = total - total % (micro_batch_size * ranks)  # of an epoch, by the sampler's own count
    consumed = 0
    while True:
        epoch, offset = divmod(consumed, counted)
        own = range(offset + rank, usable, ranks)
        own = own[: len(own) // micro_batch_size * micro_batch_size]
        if drawn < len(own):
            generator = torch.Generator()
            generator.manual_seed(epoch)
            permuted = torch.randperm(usable, generator=generator).tolist()
            yield from (permuted[place] for place in own[drawn:])
        drawn = max(0, drawn - len(own))
        consumed += len(own) * ranks
