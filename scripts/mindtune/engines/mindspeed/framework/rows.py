"""The rows of the doctor's table."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from mindtune.errors import UserError

OK, WARNING, FAIL, REHEARSED = "OK", "warning", "FAIL", "rehearsed"


@dataclass(frozen=True)
class Row:
    """One thing that was looked at: its status, and what was found, with the remedy if it's bad.

    status: `OK`; `warning`, which lets a run go on; `FAIL`, which stops it; `rehearsed`, of what a
    stand-in takes the place of, so that nothing is known about it.
    """

    name: str
    status: str
    sentence: str


def table(rows: Iterable[Row]) -> str:
    """The rows as aligned text."""
    rows = list(rows)
    widths = [max(len(row.name) for row in rows), max(len(row.status) for row in rows)]
    return "\n".join(
        f"{row.name:<{widths[0]}}  {row.status:<{widths[1]}}  {row.sentence}" for row in rows
    )


def plain(rows: Iterable[Row]) -> tuple[dict[str, str], ...]:
    """The rows for a JSON file."""
    return tuple(asdict(row) for row in rows)


def stop_on_failures(rows: Iterable[Row], head: str) -> None:
    """Raises UserError: rows failed; their sentences are in the message."""
    failed = [f"{row.name}: {row.sentence}" for row in rows if row.status == FAIL]
    if failed:
        raise UserError("\n  - ".join([head, *failed]))
