"""`loss.csv` of a save_dir: a line per iteration, whichever engine writes it."""

import csv
from pathlib import Path

from mindtune.files import writing

LOSS = "loss.csv"


def keep_rows(path: Path, last: int) -> None:
    """Cut a loss.csv back to the whole lines of iterations up to `last`."""
    with open(path, encoding="utf-8", newline="") as handle:
        rows = csv.DictReader(handle)
        columns = rows.fieldnames
        kept = [row for row in rows if None not in row.values() and int(row["iteration"]) <= last]
    with writing(path) as handle:
        writer = csv.DictWriter(handle, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
