"""Finished results that other code made, taken over on the user's word.

A job would run again when its parameters are not those that its outputs were made with, and its
code is one of them. Where nothing else differs, the results can be adopted: the records beside
them and Snakemake's own get today's parameters, and say which code really made them. So does the
record of a save_dir, which a training compares before it takes its checkpoints up.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindtune.engines.converting import OWN
from mindtune.engines.superseded import Generation, place_of
from mindtune.engines.training_directory import (
    CONTENT,
    adopt,
    adoptions,
    clear,
    held,
    is_kept,
    of_other_code,
    only_code,
    training_content,
    training_settings,
)
from mindtune.errors import UserError
from mindtune.files import read_json, writing
from mindtune.glue import made
from mindtune.glue.explain import READ_OFF, CodeOf, causes, code_changes, is_hash
from mindtune.glue.plan import Job, Plan, record_params

TRAINING = "finetune_model"
SHOWN = 10  # differences of code


@dataclass(frozen=True)
class Adoption:
    """A job whose outputs other code made; before and now: the hashes of the two codes."""

    job: Job
    before: str
    now: str

    def line(self) -> str:
        return f"{', '.join(self.job.outputs)} ({self.job.rule}, code {self.before} -> {self.now})"


@dataclass(frozen=True)
class Training:
    """A save_dir that other code trained up to an iteration; settings: today's, without content."""

    name: str
    save_dir: Path
    iteration: int
    settings: Mapping[str, Any]

    def line(self) -> str:
        size = sum(path.stat().st_size for path in self.save_dir.rglob("*") if path.is_file())
        return f"{self.save_dir} (up to iteration {self.iteration}, {size / 1e9:.1f} GB)"


def params_of(job: Job) -> list[str]:
    """Today's parameters as they are recorded: texts."""
    return sorted(map(repr, job.params.values()))


def candidates(plan: Plan) -> list[Adoption]:
    """The jobs whose outputs differ from today's in their code only, but for tables and pages."""
    found = (_adoption(job) for job in plan.jobs if job.rule not in READ_OFF)
    return [one for one in found if one is not None]


def assumed(adoptions: Sequence[Adoption]) -> dict[str, list[str]]:
    """Output -> the parameters that it has once these are adopted; for a second plan."""
    return {output: params_of(one.job) for one in adoptions for output in one.job.outputs}


def adoptable(found: Sequence[Adoption], after: Plan) -> list[Adoption]:
    """Those that need not run once all of them are adopted, by the plan that assumes it."""
    runs = {output for job in after.needed() for output in job.outputs}
    return [one for one in found if runs.isdisjoint(one.job.outputs)]


def _adoption(job: Job) -> Adoption | None:
    recorded = in_todays_form(job.rule, job.recorded_params or ())
    today = params_of(job)
    old, new = ({*recorded} - {*today}, {*today} - {*recorded})
    if len(old) != 1 or new != {repr(job.params.get("code"))}:
        return None
    before = old.pop().strip("'")
    return Adoption(job, before, job.params["code"]) if is_hash(before) else None


def changed_code(adoptions: Sequence[Adoption], code_of: CodeOf) -> list[str]:
    """In what the code that made them differs from today's, in words, each once; some of it."""
    found = {
        text: None
        for one in adoptions
        for text in code_changes(one.job.rule, one.before, one.now, code_of)
    }
    texts = sorted(found, key=lambda text: not text.endswith(" changed"))
    more = [f"and {len(texts) - SHOWN} more differences of code"] if texts[SHOWN:] else []
    return [*texts[:SHOWN], *more]


def in_todays_form(rule: str, recorded: Sequence[str]) -> list[str]:
    """The recorded parameters of a job as rules name them since version 0.2.

    Version 0.1 gave the two conversions the engine and its machine, of which the converter alone
    counted, and the answering no model that was trained elsewhere.
    """
    if rule in ("prepare_checkpoint", "export_model") and len(recorded) == 4:
        for machine, converter in (("{}", OWN), *_CONVERTERS):
            rest = [text for text in recorded if text not in (machine, *_ENGINES)]
            if len(rest) == 2:
                return [*rest, repr(converter)]
    if rule == "answer_prompts" and len(recorded) == 6 and "None" not in recorded:
        return [*recorded, "None"]
    return list(recorded)


_ENGINES = ("'hf'", "'mindspeed'")
_CONVERTERS = [(repr({"converter": name}), name) for name in (OWN, "mm-convert")]


def trainings(plan: Plan) -> list[Training]:
    """The trainings with a save_dir that differs from today's settings in its code only."""
    return [one for job in plan.jobs if (one := training_of(job)) is not None]


def training_of(job: Job) -> Training | None:
    """See `trainings`."""
    if job.rule != TRAINING:
        return None
    settings = wanted(job.params)
    save_dir = Path(job.params["save_dir"])
    place = place_of(save_dir)
    iteration = of_other_code(place, settings | _content(job, place))
    name = job.wildcards["experiment"]
    return Training(name, save_dir, iteration, settings) if iteration else None


def again(found: Sequence[Training], name: str) -> Path:
    """Put the checkpoints of an experiment aside, so that it is trained again; returns where to.

    Raises
    ------
    UserError: they differ from today's settings in more than the code, or in nothing.
    """
    for one in found:
        if one.name == name:
            with held(one.save_dir) as place:
                return clear(place)
    names = ", ".join(one.name for one in found) or "none"
    raise UserError(
        f"--again {name}: no experiment whose checkpoints differ in their code only; there are: {names}."
    )


def wanted(params: Mapping[str, Any]) -> dict[str, Any]:
    """What a save_dir records of the parameters of a training, without the content of its files."""
    settings = training_settings(params["engine"], params["code"], params, {})
    return {key: value for key, value in settings.items() if key != CONTENT}


def _content(job: Job, place: Path) -> dict[str, Any]:
    """The content of what a training reads, where it is there; else the training compares it."""
    files = {name: Path(job.files.get(name, "")) for name in ("train", "held_out", "hf", "mm")}
    if not all(path.exists() for path in files.values()) or not Generation.read(place).settings:
        return {}
    found = training_content(files["train"], files["held_out"], files["hf"], files["mm"])
    return {CONTENT: found}


def refuse_training_again(jobs: Sequence[Any]) -> None:
    """Keep a command from putting checkpoints aside that only an upgrade makes other ones.

    jobs: Snakemake's jobs that would run. Nothing was run or removed yet.

    Raises
    ------
    UserError: a save_dir differs from the settings of a job in its code only.
    """
    said = []
    for job in jobs:
        if job.rule.name == TRAINING:
            save_dir = Path(job.params["save_dir"])
            settings, place = wanted(dict(job.params.items())), place_of(save_dir)
            iteration = of_other_code(place, settings)
            if iteration and not is_kept(place, settings):
                said.append(only_code(save_dir, iteration))
    if said:
        raise UserError("\n".join(said))


def take_over(found: Sequence[Adoption], trained: Sequence[Training]) -> None:
    """Write the records. Each is one step, and a second call goes on where a killed one ended.

    The record of a job's first output is the last that is written of it: without it the job is found
    again.
    """
    for training in trained:
        adopt(training.save_dir, training.settings)
    for one in found:
        if one.job.rule == TRAINING:
            _rewrite_finetune(one.job)
        for output in reversed(one.job.outputs):  # by the first one a job is found
            made.adopt(
                one.job.rule, output, params_of(one.job), one.job.inputs, one.before, one.now
            )
            record_params(output, params_of(one.job))


def _rewrite_finetune(job: Job) -> None:
    """Give finetune.json the fingerprint of its save_dir, and its time stamp: it is no newer."""
    save_dir = Path(job.params["save_dir"])
    here = Generation.read(place_of(save_dir))
    for path in map(Path, job.outputs):
        if path.suffix != ".json" or here.mark is None:
            continue
        times = path.stat()
        found = read_json(path)
        told = found | {"fingerprint": here.mark, "adopted": adoptions(save_dir)}
        if told != found:
            with writing(path) as handle:
                json.dump(told, handle, indent=2, ensure_ascii=False)
                handle.write("\n")
                handle.flush()  # nothing is written after this, so the time stamp stays
                os.utime(handle.fileno(), ns=(times.st_atime_ns, times.st_mtime_ns))


def reasons(plan: Plan) -> Iterator[str]:
    """A line for each job that runs all the same: what of it, and why."""
    found = causes(plan, None)
    for job in plan.needed():
        texts = [cause.text for cause in found if job.number in cause.jobs]
        why = "; ".join(texts) or (
            "is made again in seconds from the answers"
            if job.rule in READ_OFF
            else "follows from others"
        )
        yield f"{', '.join(job.outputs)} ({job.rule}): {why}"
