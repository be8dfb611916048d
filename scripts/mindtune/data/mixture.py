"""Several files of instructions as one, each with a weight, and a part of them all."""

import random
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path

from mindtune.data.json_list import read_records
from mindtune.errors import UserError


class Mixture:
    """The records of some files, one file after the other.

    Parameters
    ----------
    files: paths with weights: how often training sees each record of a file. Of the fraction,
        a seeded choice is seen once more.
    max_samples: so many records of all the files together; None for all.
    subset_seed: seed of the choice of these; None for the first.
    """

    def __init__(
        self,
        files: Sequence[tuple[Path, float]],
        max_samples: int | None,
        subset_seed: int | None,
        weight_seed: int,
    ) -> None:
        self.files = files
        self.weight_seed = weight_seed
        self.limit = max_samples if subset_seed is None else None
        self.chosen = None
        if max_samples is not None and subset_seed is not None:
            self.chosen = self._choose(max_samples, subset_seed)

    def _choose(self, wanted: int, seed: int) -> Collection[int]:
        total = sum(1 for path, _ in self.files for _ in read_records(path))
        if wanted > total:
            raise UserError(
                f"data.max_samples is {wanted}, but there are {total} records; write at most "
                f"{total}, or null for all."
            )
        return frozenset(random.Random(f"subset/{seed}").sample(range(total), wanted))

    def __iter__(self) -> Iterator[tuple[int, int, dict, int]]:
        """Yield (file, number of the record in it, record, times that training sees it)."""
        return islice(self._all(), self.limit)

    def _all(self) -> Iterator[tuple[int, int, dict, int]]:
        place = -1
        for file, (path, weight) in enumerate(self.files):
            whole, fraction = divmod(weight, 1)
            times = int(whole)
            rng = random.Random(f"weight/{self.weight_seed}/{file}")
            for number, record in enumerate(read_records(path)):
                place += 1
                more = fraction and rng.random() < fraction
                if self.chosen is None or place in self.chosen:
                    yield file, number, record, times + 1 if more else times
