"""What Snakemake would run now, and what it recorded when it ran it last.

Beside `mindtune.glue.script_runner` this is the only module that knows Snakemake. It builds the graph of jobs
as `snakemake --dry-run` does and executes nothing.
"""

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from snakemake.api import SnakemakeApi
from snakemake.cli import parse_args, parse_config
from snakemake.persistence.file import FilePersistence
from snakemake.settings.enums import ChangeType
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings

from mindtune.glue.graph import taken_for


@dataclass(frozen=True)
class Job:
    """A job of the graph.

    needed: whether it would run. params: by name, as the rule gives them. recorded_params: the
    representations of the values that its outputs were made with, in no order; None where
    Snakemake has no record. recorded_inputs: likewise. missing: outputs that are not there.
    newer: inputs that changed after the outputs were made. incomplete: whether it was broken off.
    benchmark: where its seconds are kept. needs: numbers of the jobs whose outputs it reads.
    outputs: paths. files: those of its inputs that are named, by name.
    """

    number: int
    rule: str
    wildcards: Mapping[str, str]
    needed: bool
    params: Mapping[str, Any]
    recorded_params: Sequence[str] | None
    inputs: Sequence[str]
    recorded_inputs: Sequence[str] | None
    missing: Sequence[str]
    newer: Sequence[str]
    incomplete: bool
    benchmark: str | None
    needs: Sequence[int]
    outputs: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The jobs, each after those that it needs.

    config: the configuration as it was given. code: the files of each hash of code.
    """

    jobs: Sequence[Job]
    config: Mapping[str, Any] = field(default_factory=dict)
    code: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def needed(self) -> list[Job]:
        return [job for job in self.jobs if job.needed]


class PlanError(Exception):
    """Snakemake could not make a plan, and has said why."""


def plan(arguments: Sequence[str], assumed: Mapping[str, Sequence[str]] | None = None) -> Plan:
    """The plan for a command line of Snakemake, without the word `snakemake`.

    assumed: the texts of other params than recorded, which outputs are taken to be made with.

    Raises
    ------
    PlanError: Snakemake refused, and has printed its reason.
    """
    with contextlib.redirect_stderr(io.StringIO()) as chatter:
        try:
            _, args = parse_args(["--dry-run", *arguments])
        except SystemExit as error:
            raise PlanError(chatter.getvalue().strip().splitlines()[-1]) from error
    output = OutputSettings(
        dryrun=True, nocolor=True, enable_file_logging=False, log_level_override=logging.WARNING
    )
    with SnakemakeApi(output) as api:
        try:
            workflow = api.workflow(
                ResourceSettings(cores=1),
                ConfigSettings(
                    config=parse_config(args.config),
                    configfiles=args.configfile,
                    config_args=args.config,
                    replace_workflow_config=args.replace_workflow_config,
                ),
                snakefile=args.snakefile,
                workdir=args.directory,
            )
            graph = workflow.dag(
                DAGSettings(
                    targets=args.targets,
                    forcetargets=args.force,
                    forceall=args.forceall,
                    forcerun=args.forcerun,
                    force_incomplete=True,
                    rerun_triggers=args.rerun_triggers,
                    max_checksum_file_size=args.max_checksum_file_size,
                )
            )
            # Of what the API offers, this builds the graph and executes nothing.
            with contextlib.redirect_stdout(io.StringIO()), taken_for(assumed or {}):
                graph.list_changes(ChangeType.PARAMS)
            found = workflow._workflow
            return Plan(
                list(_jobs(found.dag, found.persistence)),
                dict(found.globals["config"]),
                found.globals["CODE"],
            )
        except SystemExit as error:  # of our Snakefile, which has told the mistake
            raise PlanError from error
        except Exception as error:
            api.print_exception(error)
            raise PlanError from error


def record_params(output: str, params: Sequence[str]) -> None:
    """Write other params into Snakemake's own record of an output; nothing where it has none.

    A record that a kill left half-written counts as none for Snakemake, which then looks at what
    is kept beside the results (see `mindtune.glue.graph`).
    """
    records = FilePersistence(nolock=True)
    found = records._read_record(output)
    if found is not None:
        records._write_record(output, found.model_copy(update={"params": sorted(params)}))


def _jobs(dag: Any, persistence: Any) -> Iterator[Job]:
    levels = [sorted(level, key=lambda job: list(job.output)) for level in dag.toposorted()]
    ordered = [job for level in levels for job in level if job.output]
    numbers = {job: number for number, job in enumerate(ordered)}
    for job, number in numbers.items():
        reason = dag.reason(job)
        record = next(filter(None, map(persistence.metadata, job.output)), None)
        yield Job(
            number=number,
            rule=job.rule.name,
            wildcards=dict(job.wildcards.items()),
            needed=dag.needrun(job),
            params={name: value for name, value in job.params.items() if name},
            recorded_params=record and record.params,
            inputs=[str(path) for path in job.input],
            recorded_inputs=record and record.input,
            missing=sorted(map(str, reason.missing_output)),
            newer=sorted(map(str, reason.updated_input)),
            incomplete=bool(reason.incomplete_output),
            benchmark=str(job.benchmark) if job.benchmark else None,
            needs=[numbers[needed] for needed in dag.dependencies[job] if needed in numbers],
            outputs=[str(path) for path in job.output],
            files={name: str(value) for name, value in job.input.items() if isinstance(value, str)},
        )
