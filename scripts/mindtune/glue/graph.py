"""Where Snakemake's graph of jobs needs help: ancient inputs, lost records, and what was left.

It uses parts of Snakemake 9.27 that are not its public interface; tests/workflow/test_broken_off.py
fails where another version has others.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from snakemake.dag import DAG
from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord, PersistenceBase

from mindtune.glue.made import recorded, unknown

NAMED = 3
# Output -> the params that it is taken to be made with, see `taken_for`.
_assumed: dict[str, list[str]] = {}


def look_past_ancient_inputs() -> None:
    """Let a job be looked at although it follows, by an ancient input only, from one that runs.

    Snakemake looks at no job that follows from one that runs: it takes it that such jobs run
    too. But a job doesn't run because of an ancient input, so that those after it would neither
    be looked at nor run: after a kill while pictures were unpacked, the next command would
    unpack them and end well, without the result that was asked for.
    """
    original = DAG.update_needrun
    if getattr(original, "looks_past_ancient_inputs", False):
        return

    async def update_needrun(self: DAG, *arguments: Any, **options: Any) -> None:
        whole = self.bfs

        def bfs(direction: Any, *jobs: Any, **stop: Any) -> Iterator[Any]:
            if direction is self.depending:
                return _followers(self, *jobs)
            return whole(direction, *jobs, **stop)

        self.bfs = bfs
        try:
            await original(self, *arguments, **options)
        finally:
            del self.bfs

    update_needrun.looks_past_ancient_inputs = True
    DAG.update_needrun = update_needrun


def _followers(dag: DAG, *jobs: Any) -> Iterator[Any]:
    """These jobs, and all that run because of them."""
    found, waiting = set(jobs), deque(jobs)
    while waiting:
        job = waiting.popleft()
        yield job
        for follower, files in dag.depending[job].items():
            if follower not in found and not all(map(_is_no_reason, files)):
                found.add(follower)
                waiting.append(follower)


def _is_no_reason(file: Any) -> bool:
    return file.is_ancient and Path(file).exists()


def look_beside_the_results(say: Callable[[str], None]) -> None:
    """Where Snakemake has no record of an output, let it take that which lies beside the results.

    say: is given a sentence, once, if there are outputs with neither.
    """
    original = PersistenceBase.metadata
    if getattr(original, "looks_beside_the_results", False):
        return
    said = False

    def metadata(self: PersistenceBase, target: Any) -> MetadataRecord | None:
        nonlocal said
        found = original(self, target) or _record_of(target)
        if found and str(target) in _assumed:
            return found.model_copy(update={"params": _assumed[str(target)]})
        if found is None and not said and Path(target).exists():
            said = True
            say(unknown(_without_record(self, original)))
        return found

    metadata.looks_beside_the_results = True
    PersistenceBase.metadata = metadata


@contextmanager
def taken_for(params: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """Let Snakemake take it that outputs, by path, were made with other params than recorded."""
    _assumed.update(params)
    try:
        yield
    finally:
        _assumed.clear()


def _record_of(output: Any) -> MetadataRecord | None:
    found = recorded(output)
    if found is None:
        return None
    made = Path(output).stat().st_mtime if Path(output).exists() else None
    return MetadataRecord(
        **found,
        log=[],
        record_format_version=RECORD_FORMAT_VERSION,
        incomplete=False,
        starttime=made,
        endtime=made,
    )


def _without_record(persistence: PersistenceBase, metadata: Callable) -> list[str]:
    """The outputs in the graph that are there and of which nothing is known."""
    return sorted(
        str(output)
        for job in persistence.dag.jobs
        for output in job.output
        if Path(output).exists() and not metadata(persistence, output) and not recorded(output)
    )


def left_undone(workflow: Any) -> str | None:
    """A sentence if a run that ended well left jobs of its graph undone; None if it did not.

    Snakemake decides at the start what to run. At the end it is asked once more: what was
    asked for must be there, and of today's settings and files.
    """
    asked = workflow.dag_settings
    if asked.until or asked.omit_from or asked.batch or workflow.touch:
        return None  # not all was asked for
    if workflow.remote_execution_settings.immediate_submit:
        return None
    workflow.async_run(workflow.dag.update_needrun())
    names = sorted({_name(job) for job in workflow.dag.needrun_jobs()})
    if not names:
        return None
    shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if names[NAMED:] else "")
    return (
        f"Not everything that was asked for is done: {shown} must still run, as files changed while "
        "this command worked; give the same command again."
    )


def _name(job: Any) -> str:
    of = "/".join(value for value in job.wildcards if value != "shared")
    return f"{job.rule.name} ({of})" if of else job.rule.name


def needed_inputs(workflow: Any) -> Iterator[Path]:
    """The files that the jobs to run read and that are there already."""
    for job in workflow.dag.needrun_jobs():
        yield from (Path(path) for path in job.input if Path(path).exists())
