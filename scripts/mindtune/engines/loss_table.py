"""`loss.csv`: a line for each iteration, the same for all engines."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mindtune.files import writing

LOSS = "loss.csv"
COLUMNS = (
    "iteration",
    "consumed_samples",
    "lr",
    "loss",
    "grad_norm",
    "ms_per_iteration",
    "samples_per_second",
    "held_out_loss",
    "tokens_per_second",
)


class LossTable:
    """Appends lines to a `loss.csv`. A training that goes on keeps those up to where it was.

    followers: whoever is told of each line, too; see `mindtune.trackers`.
    """

    def __init__(self, path: Path, followers: Any = None) -> None:
        self.path = path
        self.followers = followers

    def begin(self, iteration: int) -> None:
        """Keep the lines up to `iteration`; those after it will run again."""
        kept = []
        if iteration and self.path.is_file():
            with open(self.path, encoding="utf-8", newline="") as handle:
                kept = [row for row in csv.DictReader(handle) if _is_up_to(row, iteration)]
        with writing(self.path) as handle:
            writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept)
        if self.followers:
            self.followers.begin(iteration, kept)

    def append(self, row: Mapping) -> None:
        with open(self.path, "a", encoding="utf-8", newline="") as handle:
            csv.DictWriter(handle, COLUMNS, lineterminator="\n").writerow(row)
        if self.followers:
            self.followers.append(row)

    def sync(self) -> None:
        """Flush it to disk: no checkpoint may outlive the lines that lead to it."""
        with open(self.path, "rb") as handle:
            os.fsync(handle.fileno())


def _is_up_to(row: Mapping, iteration: int) -> bool:
    """Whether a line is whole, and of an iteration that is not run again.

    A file of an earlier version has fewer columns; what is missing stays empty.
    """
    number = row.get("iteration") or ""
    whole = all(value is not None for value in row.values())
    return whole and number.isdigit() and int(number) <= iteration
