"""Look at the machine: NPUs, CANN, versions, commits, disk; stop early where something is wrong.

    python scripts/doctor.py [--configfile config/qwen2-vl-2b.yaml]

installation.json, `mindspeed` section -> machine.json, which `mindtune.engines.mindspeed.machine`
reads: home, python, set_env, stand_in (absolute paths or null), versions and commits, and the rows
of the doctor's table. As a command it prints the table and writes nothing; the exit
status is 1 when a row fails, 2 when the configuration can't be used.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mindtune.engines.mindspeed.framework.doctor import (
    examine,
    installation_of,
    machine,
    read_installation,
)
from mindtune.engines.mindspeed.framework.pins import load_pins
from mindtune.engines.mindspeed.framework.rows import FAIL, stop_on_failures, table
from mindtune.errors import UserError
from mindtune.glue.doctor_settings import doctor_settings
from mindtune.glue.script_runner import log, run
from mindtune.glue.settings_reading import Sources, answerer, read_configuration
from mindtune.process import needed_by_all
from mindtune.settings.yaml_files import read_written

ROOT = Path(__file__).resolve().parents[1]
INSTALLATION = Path("results/framework/installation.json")
HEAD = "This machine can't run the workflow as it is configured:"


def main(snakemake) -> None:
    settings = snakemake.config["operation"]["doctor"]
    installation = read_installation(Path(snakemake.input.installation))
    rows = examine(settings, installation, load_pins())
    for line in table(rows).splitlines():
        log.info("%s", line)
    with needed_by_all():
        stop_on_failures(rows, HEAD)
    machine(installation, rows).write(Path(snakemake.output.machine))


def command(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--configfile", type=Path, default=Path("config/config.yaml"), help="as for snakemake"
    )
    try:
        settings = _settings(parser.parse_args(arguments).configfile)
        pins = load_pins()
        rows = examine(settings, installation_of(settings, INSTALLATION, pins), pins)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(rows))
    return 1 if any(row.status == FAIL for row in rows) else 0


def _settings(path: Path) -> Mapping[str, Any]:
    config = ROOT / "config"
    configuration, engine = read_configuration(
        read_written(path, "--configfile").value, files=[path]
    )
    if not (engine.framework or answerer(configuration).framework):
        raise UserError(
            f"{path} has the engine `{engine.name}`, which has no framework to look at; the doctor is "
            "for `mindspeed`, such as --configfile config/qwen2-vl-2b.yaml."
        )
    table_of_sources = config / "data_sources.yaml"
    sources = Sources(configuration, table_of_sources)
    return doctor_settings(configuration, sources)


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
elif __name__ == "__main__":
    sys.exit(command())
