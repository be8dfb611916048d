"""Look at the machine: NPUs, CANN, versions, commits, disk; stop early where something is wrong.

    python scripts/doctor.py [--configfile config/qwen2-vl-2b.yaml]

installation.json, `mindspeed` section -> machine.json, which `mindtune.engines.mindspeed.machine`
reads: home, python, set_env, stand_in (absolute paths or null), versions and commits, and the rows
of the doctor's table. As a command it prints the table and writes nothing; the exit
status is 1 when a row fails, 2 when the configuration can't be used.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mindtune.engines.mindspeed.framework.doctor import (
    examine,
    installation_of,
    machine,
    read_installation,
)
from mindtune.engines.mindspeed.framework.pins import load_pins
from mindtune.engines.mindspeed.framework.rows import FAIL, Row, stop_on_failures, table
from mindtune.engines.vllm.doctor import models_of, vllm_rows
from mindtune.errors import UserError
from mindtune.glue.doctor_settings import doctor_settings, with_types
from mindtune.glue.script_runner import log, run
from mindtune.glue.settings_reading import Sources, answerer, read_configuration
from mindtune.process import needed_by_all
from mindtune.settings.yaml_files import read_written

ROOT = Path(__file__).resolve().parents[1]
INSTALLATION = Path("results/framework/installation.json")
HEAD = "This machine can't run the workflow as it is configured:"


def main(snakemake) -> None:
    settings = with_types(snakemake.config["operation"]["doctor"])
    installation = read_installation(Path(snakemake.input.installation))
    rows = [*examine(settings, installation, load_pins()), *answering_rows(settings)]
    for line in table(rows).splitlines():
        log.info("%s", line)
    with needed_by_all():
        stop_on_failures(rows, HEAD)
    machine(installation, rows).write(Path(snakemake.output.machine))


def answering_rows(settings: Mapping[str, Any]) -> Iterator[Row]:
    """The rows of vLLM, where that answers."""
    if "vllm" in settings:
        yield from vllm_rows(settings["vllm"], models_of(settings["experiments"].values()))


def command(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--configfile", type=Path, default=Path("config/config.yaml"), help="as for snakemake"
    )
    try:
        settings, framework = _settings(parser.parse_args(arguments).configfile)
        rows = [*(_framework_rows(settings) if framework else ()), *answering_rows(settings)]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(rows))
    return 1 if any(row.status == FAIL for row in rows) else 0


def _framework_rows(settings: Mapping[str, Any]) -> list[Row]:
    pins = load_pins()
    return examine(settings, installation_of(settings, INSTALLATION, pins), pins)


def _settings(path: Path) -> tuple[Mapping[str, Any], bool]:
    """The doctor's settings, and whether there is a framework to look at.

    Raises
    ------
    UserError: the configuration can't be used, or has nothing to look at.
    """
    config = ROOT / "config"
    configuration, engine = read_configuration(
        read_written(path, "--configfile").value, files=[path]
    )
    who = answerer(configuration)
    framework = engine.framework or who.framework
    if not framework and who.name != "vllm":
        raise UserError(
            f"{path} has the engine `{engine.name}`, which has no framework to look at; the doctor is "
            "for `mindspeed`, such as --configfile config/qwen2-vl-2b.yaml, and for answer.engine: vllm."
        )
    table_of_sources = config / "data_sources.yaml"
    sources = Sources(configuration, table_of_sources)
    return with_types(doctor_settings(configuration, sources)), framework


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
elif __name__ == "__main__":
    sys.exit(command())
