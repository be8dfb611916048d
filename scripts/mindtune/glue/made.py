"""What each result was made with, kept beside the results.

Snakemake keeps it in `.snakemake`, which is easily lost: results are copied, and a directory with
a dot in front is not. Without it Snakemake takes all results for good, whatever is edited.
So every job writes for each of its outputs what Snakemake would: the parameters and the inputs.
Only where Snakemake has no record is this one looked at.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mindtune.files import write_json

RESULTS = Path("results")
PLACE = RESULTS / ".made"


def place_of(output: str | Path) -> Path | None:
    """Where the record of an output is; None for what lies elsewhere than in results/."""
    path = Path(output)
    if path.parts[:1] != RESULTS.parts:
        return None
    inner = path.relative_to(RESULTS)
    return PLACE / inner.with_name(f"{inner.name}.json")


def forget(outputs: Iterable[str]) -> None:
    """Remove the records of outputs that are about to be made again."""
    for place in filter(None, map(place_of, outputs)):
        place.unlink(missing_ok=True)


def keep(rule: str, outputs: Iterable[str], params: Iterable[Any], inputs: Iterable[str]) -> None:
    """Record what outputs were made with. Values are kept as Snakemake compares them: as texts."""
    record = {
        "rule": rule,
        "params": sorted(map(repr, params)),
        "input": sorted(map(str, inputs)),
    }
    for place in filter(None, map(place_of, outputs)):
        write_json(place, record)


def recorded(output: str | Path) -> dict[str, Any] | None:
    """What an output was made with; None where that isn't known.

    A record that can't be read, as from another version, is none.
    """
    place = place_of(output)
    try:
        record = json.loads(place.read_text(encoding="utf-8")) if place else None
    except (OSError, ValueError):
        return None
    return record if _is_record(record) else None


def _is_record(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("rule"), str)
        and all(
            isinstance(value.get(key), list) and all(isinstance(item, str) for item in value[key])
            for key in ("params", "input")
        )
    )


def unknown(outputs: Sequence[str]) -> str:
    """What to say of results that nothing is known of."""
    count = f"{len(outputs)} result{'s' if len(outputs) > 1 else ''}"
    shown = ", ".join(outputs[:3]) + (" and others" if outputs[3:] else "")
    return (
        f"{count} ({shown}) came without a record of the settings that made them, in {PLACE} or "
        ".snakemake: they are taken as they are, and whether they fit the configuration can't be known. "
        "To make one again, delete it."
    )
