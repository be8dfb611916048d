"""In what two finished runs differ, in words."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mindtune.comparison.contract import COMPARE, read_table
from mindtune.errors import UserError
from mindtune.report.wording import duration, flat, percent

SHOWN = 3
# What a difference in it would be: a reason for other results, or just another place.
REASONS = ("settings", "software", "inputs", "weights they began with")


@dataclass(frozen=True)
class Finding:
    """A difference. `of` is `results`, one of REASONS, or `circumstances`."""

    of: str
    text: str


def read_run(place: Path) -> dict[str, dict]:
    """The provenance of each experiment of a run; `place` is its results directory."""
    found = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(place.glob("*/provenance.json"))
    }
    if not found:
        raise UserError(
            f"{place} has no experiment with a provenance.json; give the results directory of a "
            "finished run (snakemake --cores 1 all writes it)."
        )
    return found


def compare_runs(here: Path, there: Path) -> tuple[list[str], bool]:
    """Lines that say in what two runs differ, and whether their results are the same."""
    mine, theirs = read_run(here), read_run(there)
    lines, same = [], True
    for name in sorted({*mine, *theirs}):
        if name not in mine or name not in theirs:
            lines.append(f"{name}: only in {here if name in mine else there}.")
            same = False
            continue
        findings = list(differences(mine[name], theirs[name]))
        findings += answer_differences(name, here / "compare.csv", there / "compare.csv")
        results = [finding for finding in findings if finding.of == "results"]
        same = same and not results
        lines.append(f"{name}: {verdict(results, findings)}")
        lines += [f"  {finding.of}: {finding.text}" for finding in findings]
    return lines, same


def verdict(results: list[Finding], findings: list[Finding]) -> str:
    reasons = [of for of in REASONS if any(finding.of == of for finding in findings)]
    if not results:
        return "the same answers and the same weights" + (
            f", though {_and(reasons)} differ." if reasons else "."
        )
    if reasons:
        return f"the results differ, and so do {_and(reasons)}."
    return (
        "the results differ, though settings, software, inputs and base weights are the same: "
        "look at the machines and at uncommitted changes."
    )


def differences(here: Mapping, there: Mapping) -> Iterator[Finding]:
    """Differences of two experiments' provenance: results first, then what may explain them."""
    asked = [*here["results"], *(key for key in there["results"] if key not in here["results"])]
    for key in (key for key in asked if key.startswith("answers_")):
        one, other = (side["results"].get(key) for side in (here, there))
        _, stage, *control = key.split("_")
        what = f"answers {stage} fine-tuning{f' to {control[0]} questions' if control else ''}"
        if None in (one, other):
            yield Finding("circumstances", f"only {'there' if one is None else 'here'} are {what}.")
        elif one != other:
            yield Finding("results", f"the {what} differ.")
    if here["weights"]["tuned"]["sha256"] != there["weights"]["tuned"]["sha256"]:
        yield Finding("results", "the fine-tuned weights differ.")
    for key, (one, other) in _pairs(flat(here["config"]), flat(there["config"])):
        yield Finding("settings", f"{key} is {one} here and {other} there.")
    yield from _software(here, there)
    for key, what in (("instructions", "sha256"), ("images", "sha256_of_names_and_sizes")):
        if here["inputs"][key][what] != there["inputs"][key][what]:
            yield Finding(
                "inputs", f"the {key} differ ({_sizes(here, key)} and {_sizes(there, key)})."
            )
    if here["results"]["prompts"] != there["results"]["prompts"]:
        yield Finding("inputs", "the prompts differ.")
    if here["weights"]["base"]["sha256"] != there["weights"]["base"]["sha256"]:
        yield Finding(
            "weights they began with",
            f"{here['weights']['base']['name']} here and {there['weights']['base']['name']} there "
            "have other weights.",
        )
    for key, (one, other) in _pairs(here["hardware"], there["hardware"]):
        yield Finding("circumstances", f"{key} is {one} here and {other} there.")
    for key, (one, other) in _pairs(here["seconds"], there["seconds"]):
        if None not in (one, other) and max(one, other) > 1.5 * min(one, other) + 1:
            yield Finding(
                "circumstances", f"{key} took {duration(one)} here and {duration(other)} there."
            )


def _software(here: Mapping, there: Mapping) -> Iterator[Finding]:
    for key, (one, other) in _pairs(here["packages"], there["packages"]):
        yield Finding("software", f"{key} is {one or 'absent'} here and {other or 'absent'} there.")
    for key, (one, other) in _pairs(here["frameworks"], there["frameworks"]):
        yield Finding("software", f"{key} is at {_state(one)} here and at {_state(other)} there.")
    if here["workflow"] != there["workflow"]:
        yield Finding(
            "software",
            f"mindtune is {_state(here['workflow'])} here and {_state(there['workflow'])} there.",
        )


def answer_differences(experiment: str, here: Path, there: Path) -> list[Finding]:
    """How many rows of two compare.csv differ, with the first of them."""
    tables = [
        table[table["experiment"] == experiment].set_index("id")
        for table in (read_table(here, COMPARE), read_table(there, COMPARE))
    ]
    found = []
    if set(tables[0].index) != set(tables[1].index):
        alone = [len(set(one.index) - set(two.index)) for one, two in (tables, tables[::-1])]
        found.append(
            Finding("results", f"{alone[0]} prompts are only here, {alone[1]} only there.")
        )
    both = tables[0].index.intersection(tables[1].index)
    mine, theirs = (table.loc[both] for table in tables)
    for stage in ("before", "after"):
        other = both[(mine[stage] != theirs[stage]).to_numpy()]
        if len(other):
            examples = "; ".join(
                f"{name}: “{mine.loc[name, stage]}” here, “{theirs.loc[name, stage]}” there"
                for name in other[:SHOWN]
            )
            right = [percent(table[f"exact_{stage}"].mean()) for table in (mine, theirs)]
            found.append(
                Finding(
                    "results",
                    f"{len(other)} of {len(both)} answers {stage} differ ({right[0]} exactly right "
                    f"here, {right[1]} there); {examples}.",
                )
            )
    return found


def _pairs(here: Mapping, there: Mapping) -> Iterator[tuple[str, tuple]]:
    for key in [*here, *(key for key in there if key not in here)]:
        if here.get(key) != there.get(key):
            yield key, (here.get(key), there.get(key))


def _state(found: Mapping | None) -> str:
    if not found:
        return "nothing"
    commit = (found.get("commit") or "no commit")[:12]
    changed = " with uncommitted changes" if found.get("dirty") else ""
    return f"{found.get('version', '')} {commit}{changed}".strip()


def _sizes(found: Mapping, key: str) -> str:
    return f"{found['inputs'][key]['bytes']:,} bytes"


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
