"""When questions are asked, and the controls that ask them with other pictures."""

from collections.abc import Iterable

STAGES = ("before", "after")
CONTROLS = ("blind", "shuffled")


def controls_of(columns: Iterable[str]) -> list[str]:
    """The controls that compare.csv or summary.csv has, by its columns."""
    columns = set(columns)
    return [control for control in CONTROLS if f"exact_{control}_before" in columns]
