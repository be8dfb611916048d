"""Why jobs would run: which key, file or code changed, what follows, and how long it takes.

Everything is read off a `Plan`: Snakemake records the values of a job's parameters, without
their names, when the job ends, and compares them with today's.
"""

import ast
import csv
import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindtune.engines import ENGINES
from mindtune.glue.plan import Job, Plan
from mindtune.glue.sourcecode import RECORDS, recorded

# Parameters that are not named like the section of the configuration that they hold.
KEYS = {
    "tuned_model": "experiments",
    "converter": "mindspeed.converter",
    "adapter": "export",
    "demo": "sources.demo",
    "line": "sources.download",
    "what": "sources",
    "target": "sources.images",
    "pictures": "sources.images",
    "weights": "sources.mixture",
    "seq_length": "train.seq_length",
    "confidence": "compare.confidence",
    "primary_metric": "compare.primary_metric",
    "equivalence_margin": "compare.equivalence_margin",
    "controls": "compare.controls",
    "language": "report.language",
    "experiment": "experiments",
    "config": "",
    "scopes": "experiments",
    "settings": "mindspeed",
    "pins": "mindspeed.install",
    "vllm_pins": "vllm.install",
    **{name: f"mindspeed.{name}" for name in ("home", "python", "set_env", "stand_in", "install")},
}
# Parameters that follow from the job's wildcards, are always the same, or say what was adopted.
CONSTANT = {"save_dir", "benchmarks", "adopted"}
# What is read off finished answers in seconds: such tables and pages are made again by today's code,
# whoever made the answers, so that they have today's columns and say what was adopted.
READ_OFF = {
    "compare_answers", "score_answers", "summarize_scores", "plot_training", "draw_samples",
    "record_provenance", "build_report",
}  # fmt: skip
SHOWN = 60  # characters of a value
NAMED = 3  # names in a list


@dataclass(frozen=True)
class Cause:
    """Something that changed, in words, and the numbers of the jobs that it concerns itself."""

    text: str
    jobs: tuple[int, ...]


CodeOf = Callable[[str], Mapping[str, str] | None]


def known_code(plan: Plan) -> CodeOf:
    """The files of each hash of code: of today's, and of those of which a record was kept here."""
    return lambda name: plan.code.get(name) or recorded(name, RECORDS)


def causes(plan: Plan, code_of: CodeOf | None) -> list[Cause]:
    """All that makes jobs run, each once, in the order of the jobs.

    code_of: gives the files that a hash of code stands for, None when that is not known. None: what
    changed of the code is left out.
    """
    found: dict[str, list[int]] = {}
    for job in plan.needed():
        for text in _of_job(job, plan.config, code_of):
            found.setdefault(text, []).append(job.number)
    missing = [job for job in plan.needed() if job.missing]
    if missing:
        names = [name for job in missing for name in job.missing]
        text = f"not there: {_listed(names, 'file')}"
        found = {text: [job.number for job in missing], **found}
    return [Cause(text, tuple(jobs)) for text, jobs in found.items()]


def _of_job(job: Job, config: Mapping, code_of: CodeOf | None) -> Iterator[str]:
    if job.incomplete:
        yield f"{job.rule} was broken off"
    for name in job.newer:
        yield f"{name} changed after it was used"
    if job.recorded_params is None:
        return
    for key, old, new in changed_settings(job):
        if key == "code":
            yield from code_changes(job.rule, old, new, code_of) if code_of else ()
        else:
            yield f"{_full_key(key, job, config)}: {_shown(old)} -> {_shown(new)}"
    yield from _input_changes(job)


def changed_settings(job: Job) -> Iterator[tuple[str, Any, Any]]:
    """The settings of a job that differ from those its outputs were made with.

    Yields dotted keys of the configuration (or `code`), the old value and the new one; `Absent`
    where there was, or is, none.
    """
    recorded = set(job.recorded_params or ())
    new = {
        name: value
        for name, value in job.params.items()
        if name not in CONSTANT and repr(value) not in recorded
    }
    kept = {repr(value) for value in job.params.values()}
    old = [_value(text) for text in job.recorded_params or () if text not in kept]
    engine_changed = "engine" in new
    for name, value in new.items():
        if name == "machine" and engine_changed:
            continue  # another engine, another section: none of its keys was changed
        before = _counterpart(name, value, old)
        key = config_key(name, job.params)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            yield from _differences(key, before, value)
        else:
            yield key, before, value


def config_key(param: str, params: Mapping[str, Any]) -> str:
    """The key of the configuration that a rule's parameter holds."""
    if param == "machine":
        return ENGINES[params["engine"]].machine
    return KEYS.get(param, param)


class Absent:
    """Stands for a value that there is not."""


def _counterpart(name: str, value: Any, old: Sequence[Any]) -> Any:
    """The recorded value that was this parameter's: of the same kind, with most keys in common."""
    alike = [other for other in old if type(other) is type(value)]
    if name == "code":
        alike = [other for other in alike if is_hash(other)]
    elif isinstance(value, str):
        alike = [other for other in alike if not is_hash(other)]
    if isinstance(value, Mapping):
        alike = [other for other in alike if set(other) & set(value)]
        alike.sort(key=lambda other: -len(set(other) & set(value)))
    return alike[0] if alike else Absent


def is_hash(text: str) -> bool:
    return len(text) == 16 and set(text) <= set("0123456789abcdef")


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _differences(prefix: str, old: Mapping, new: Mapping) -> Iterator[tuple[str, Any, Any]]:
    for name in [*new, *(name for name in old if name not in new)]:
        key = f"{prefix}.{name}" if prefix else str(name)
        before, now = old.get(name, Absent), new.get(name, Absent)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from _differences(key, before, now)
        elif before != now:
            yield key, before, now


def _full_key(key: str, job: Job, config: Mapping) -> str:
    """A key as it is in the file: within an experiment, where the experiment sets it."""
    name = job.wildcards.get("experiment") or job.wildcards.get("scope")
    place: Any = (config.get("experiments") or {}).get(name)
    for part in key.split("."):
        place = place.get(part) if isinstance(place, Mapping) else None
    return key if place is None else f"experiments.{name}.{key}"


def code_changes(rule: str, old: Any, new: str, code_of: CodeOf) -> Iterator[str]:
    """What of the code of a rule changed between two hashes, in words."""
    before, now = (code_of(name) if isinstance(name, str) else None for name in (old, new))
    if before is None or now is None:
        yield f"the code of {rule} changed"
        return
    for name in sorted({*before, *now}):
        if name not in now:
            yield f"scripts/{name} is no longer used by {rule}"
        elif name not in before:
            yield f"scripts/{name} is now used by {rule}"
        elif before[name] != now[name]:
            yield f"scripts/{name} changed"


def _input_changes(job: Job) -> Iterator[str]:
    before, now = set(job.recorded_inputs or ()), set(job.inputs)
    gone, come = sorted(before - now), sorted(now - before)
    if gone and come:
        yield f"what {job.rule} reads: {_listed(gone, 'file')} -> {_listed(come, 'file')}"
    elif gone:
        yield f"what {job.rule} reads: no longer {_listed(gone, 'file')}"
    elif come:
        yield f"what {job.rule} reads: {_listed(come, 'file')} too"


def _shown(value: Any) -> str:
    if value is Absent:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _listed(names: Sequence[str], thing: str) -> str:
    """Some names, and how many there are beside."""
    rest = len(names) - NAMED
    if rest < 2:
        return ", ".join(names)
    return f"{', '.join(names[:NAMED])} and {rest} more {thing}s"


def followers(plan: Plan, numbers: Iterable[int]) -> list[Job]:
    """The jobs with these numbers and those that would run because of them."""
    reached = set(numbers)
    for job in plan.jobs:
        if job.needed and reached.intersection(job.needs):
            reached.add(job.number)
    return [job for job in plan.jobs if job.number in reached]


def seconds_of(job: Job) -> float | None:
    """How long a job took last, or else the median of its rule; None when nothing was measured."""
    if job.benchmark is None:
        return None
    own = Path(job.benchmark)
    if own.is_file():
        return _measured(own)
    others = [_measured(path) for path in own.parent.glob("*.tsv")]
    others = [seconds for seconds in others if seconds is not None]
    return statistics.median(others) if others else None


def _measured(path: Path) -> float | None:
    """The median of the runs in one of Snakemake's benchmark files."""
    with open(path, encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    try:
        return statistics.median(float(row["s"]) for row in rows)
    except (KeyError, ValueError):
        return None


def explanation(plan: Plan, code_of: CodeOf) -> str:
    """All causes with what each runs, and the time of all together."""
    needed = plan.needed()
    if not needed:
        return "Nothing would run: all is up to date." + _without_record(plan)
    paragraphs: dict[tuple[int, ...], list[str]] = {}
    for cause in causes(plan, code_of):
        reached = tuple(job.number for job in followers(plan, cause.jobs))
        paragraphs.setdefault(reached, []).append(cause.text)
    rest = {job.number for job in needed}.difference(*paragraphs)
    if rest:
        paragraphs[tuple(rest)] = ["asked for"]
    parts = [
        _paragraph("\n".join(texts), [job for job in plan.jobs if job.number in numbers])
        for numbers, texts in paragraphs.items()
    ]
    return "\n\n".join([*parts, _sum(needed) + _without_record(plan) + _of_code(needed)])


def _paragraph(text: str, jobs: Sequence[Job]) -> str:
    rows = list(_rows(jobs))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [
        f"{rule:{widths[0]}}  {of:{widths[1]}}  {seconds}".rstrip() for rule, of, seconds in rows
    ]
    first, *others = lines
    return "\n".join([text, f"  runs {first}", *(f"       {line}" for line in others)])


def _rows(jobs: Sequence[Job]) -> Iterator[tuple[str, str, str]]:
    """Rule, what of it, and seconds, a row for each rule and stage."""
    groups: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.rule, job.wildcards.get("stage", "")), []).append(job)
    for (rule, stage), members in groups.items():
        others = (_of(job) for job in members)
        names = [name for name in others if name]
        of = ", ".join(filter(None, [stage, _listed(names, "job")]))
        times = [seconds_of(job) for job in members]
        known = [seconds for seconds in times if seconds is not None]
        yield (
            rule,
            of,
            f"about {duration(sum(known))}" if len(known) == len(times) else "not measured",
        )


def _of(job: Job) -> str:
    """What a job is about, beside its stage; nothing of what all experiments share."""
    names = [value for key, value in job.wildcards.items() if key != "stage"]
    return "/".join(name for name in names if name != "shared")


def _sum(jobs: Sequence[Job]) -> str:
    times = {job.number: seconds_of(job) for job in jobs}
    known = [seconds for seconds in times.values() if seconds is not None]
    unknown = sorted({job.rule for job in jobs if times[job.number] is None})
    count = f"{len(jobs)} job{'s' if len(jobs) > 1 else ''}"
    if not known:
        return f"{count}; how long they take was not measured yet."
    text = f"{count}, about {duration(sum(known))} one after another, by what they took before"
    return f"{text}; not measured: {', '.join(unknown)}." if unknown else f"{text}."


def duration(seconds: float) -> str:
    """Seconds in words, as exact as an estimate is: `72 s`, `25 min`, `3.5 h`."""
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    if seconds < 7200:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def _of_code(needed: Sequence[Job]) -> str:
    """What to do where results differ from today's in nothing but the code that made them."""
    found = [job for job in needed if _is_other_code(job)]
    if not found:
        return ""
    count = f"{len(found)} of them" if len(found) < len(needed) else "They"
    return (
        f"\n{count} would run because of other code and not of other settings; `python "
        "scripts/adopt.py` lists the results that can be taken over as they are."
    )


def _is_other_code(job: Job) -> bool:
    known = job.recorded_params is not None and not job.missing and job.rule not in READ_OFF
    return known and [key for key, _, _ in changed_settings(job)] == ["code"]


def _without_record(plan: Plan) -> str:
    unknown = [job for job in plan.jobs if job.recorded_params is None and not job.needed]
    if not unknown:
        return ""
    count = f"{len(unknown)} result{'s' if len(unknown) > 1 else ''}"
    return f"\n{count} without a record of the settings, as after copying: taken as they are."
