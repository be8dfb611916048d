#!/usr/bin/env python3
"""Create a Kubernetes Job that runs one of Snakemake's job scripts; prints the Job's name.

The form of the Job is job.yaml beside this file; kubectl's own context and namespace are used.
Any Python 3 will do.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template

FORM = Path(__file__).with_name("job.yaml")


def manifest(form: str, given: argparse.Namespace) -> str:
    """The form with what this job runs and gets; texts are quoted, as YAML and JSON do alike."""
    device, number = given.device.rsplit("=", 1)
    return Template(form).substitute(
        name=json.dumps(f"mindtune-{given.name.replace('_', '-')}-"),
        seconds=60 * given.minutes,
        script=json.dumps(str(given.script.resolve())),
        directory=json.dumps(str(Path.cwd())),
        cpus=given.cpus,
        memory=f"{given.memory_mb}M",
        device=json.dumps(device),
        devices=int(number),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--name", required=True, help="of the rule")
    add("--cpus", type=int, required=True)
    add("--memory-mb", type=int, required=True)
    add("--minutes", type=int, required=True)
    add("--device", required=True, metavar="NAME=NUMBER")
    add("script", type=Path)
    given = parser.parse_args(arguments)
    created = subprocess.run(
        ["kubectl", "create", "-f", "-", "-o", "jsonpath={.metadata.name}"],
        input=manifest(FORM.read_text(encoding="utf-8"), given), text=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    print(created.stdout)
    return created.returncode


if __name__ == "__main__":
    sys.exit(main())
