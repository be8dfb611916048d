#!/usr/bin/env python3
"""Create a Kubernetes Job that runs one of Snakemake's job scripts; prints the Job's name.

The form of the Job is job.yaml beside this file; kubectl's own context and namespace are used.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml


def manifest(form: dict, given: argparse.Namespace) -> dict:
    """The form with what this job runs and gets."""
    name, number = given.device.rsplit("=", 1)
    limits = {"cpu": str(given.cpus), "memory": f"{given.memory_mb}M"}
    if int(number):
        limits[name] = number
    form["metadata"]["generateName"] = f"mindtune-{given.name.replace('_', '-')}-"
    form["spec"]["activeDeadlineSeconds"] = 60 * given.minutes
    [container] = form["spec"]["template"]["spec"]["containers"]
    container["command"] = ["/bin/sh", str(given.script.resolve())]
    container["workingDir"] = str(Path.cwd())
    container["resources"] = {"requests": limits, "limits": limits}
    return form


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
    form = yaml.safe_load(Path(__file__).with_name("job.yaml").read_text(encoding="utf-8"))
    created = subprocess.run(
        ["kubectl", "create", "-f", "-", "-o", "jsonpath={.metadata.name}"],
        input=yaml.safe_dump(manifest(form, given)), text=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    print(created.stdout)
    return created.returncode


if __name__ == "__main__":
    sys.exit(main())
