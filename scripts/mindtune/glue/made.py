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
ADOPTED = "adopted"
LISTS = ("params", "input")


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


def adopt(
    rule: str,
    output: str | Path,
    params: Iterable[str],
    inputs: Iterable[str],
    before: str,
    now: str,
) -> None:
    """Record that an output which other code made is taken for the work of today's.

    params: the texts of today's. before, now: hashes of the two codes. What is recorded already is
    not written again; the code that made it stays named however often it is adopted.
    """
    place = place_of(output)
    if place is None:
        return
    note = adopted(output) or {"made_by": before}
    record = {
        "rule": rule,
        "params": sorted(params),
        "input": sorted(map(str, inputs)),
        ADOPTED: note | {"adopted_as": now},
    }
    write_json(place, record)


def adopted(output: str | Path) -> dict[str, str] | None:
    """The code that made an output, `made_by`, and that which it counts for, `adopted_as`."""
    found = _read(place_of(output))
    return found.get(ADOPTED) if found else None


def adopted_below(scopes: Iterable[str]) -> dict[str, dict[str, str]]:
    """What was adopted of the results of some experiments, by output."""
    found = {}
    for scope in scopes:
        for place in sorted((PLACE / scope).rglob("*.json")):
            inner = place.relative_to(PLACE)
            output = RESULTS / inner.with_name(inner.name.removesuffix(".json"))
            if note := adopted(output):
                found[str(output)] = note
    return found


def recorded(output: str | Path) -> dict[str, Any] | None:
    """What an output was made with; None where that isn't known.

    A record that can't be read, as from another version, is none.
    """
    found = _read(place_of(output))
    return {key: found[key] for key in ("rule", *LISTS)} if found else None


def _read(place: Path | None) -> dict[str, Any] | None:
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
            for key in LISTS
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
