"""The profiles of machines that are not here: what can be known of them without."""

import os
import re
import shutil
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from lacking import lacking
from workflow.conftest import ROOT
from workflow.test_kill import MODEL

PROFILES = sorted((ROOT / "profiles").glob("*/config.yaml"))
GENERIC = ROOT / "profiles/generic"
KUBERNETES = ROOT / "profiles/kubernetes"

# A kubectl for which every pod is a process here: it keeps a manifest, a log and the exit status.
KUBECTL = """#!{python}
import json, os, subprocess, sys, yaml
here = os.environ["KUBECTL_STATE"]
command, *rest = sys.argv[1:]
if command == "create":
    job = yaml.safe_load(sys.stdin)
    name = job["metadata"]["generateName"] + str(len(os.listdir(here)))
    json.dump(job, open(f"{{here}}/{{name}}.json", "w"))
    [container] = job["spec"]["template"]["spec"]["containers"]
    run = 'cd "$1" && shift && "$@"; echo $? > "$STATUS"'
    subprocess.Popen(
        ["sh", "-c", run, "sh", container["workingDir"], *container["command"]],
        env=os.environ | {{"STATUS": f"{{here}}/{{name}}.status"}}, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=open(f"{{here}}/{{name}}.log", "w"), stderr=subprocess.STDOUT,
    )
    print(name)
elif command == "get":
    name = rest[1]
    if not os.path.exists(f"{{here}}/{{name}}.json"):
        sys.exit()
    try:
        ended = open(f"{{here}}/{{name}}.status").read().strip()
    except FileNotFoundError:
        ended = ""
    print("there", {{"": "/", "0": "1/"}}.get(ended, "/1"))
else:
    sys.exit("the stand-in has no " + command)
"""


def program(folder: Path, name: str, text: str) -> dict[str, str]:
    """An environment in which a command is a stand-in."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.parent.name)
def test_every_rule_that_a_profile_names_is_there(path):
    profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    text = "".join(rules.read_text(encoding="utf-8") for rules in (ROOT / "rules").glob("*.smk"))
    rules = set(re.findall(r"^rule (\w+):", text, re.MULTILINE))
    assert {*profile.get("set-resources", {}), *profile.get("groups", {})} <= rules


def test_the_executors_of_the_profiles_are_pinned():
    pinned = (ROOT / "envs/cluster.txt").read_text(encoding="utf-8")
    for path in PROFILES:
        executor = yaml.safe_load(path.read_text(encoding="utf-8")).get("executor")
        assert executor is None or f"snakemake-executor-plugin-{executor}==" in pinned


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("JobId=7 JobName=x JobState=COMPLETED Reason=None", "success"),
        ("JobId=7 JobName=x JobState=PENDING Reason=Resources", "running"),
        ("JobId=7 JobName=x JobState=RUNNING Reason=None", "running"),
        ("JobId=7 JobName=x JobState=COMPLETING Reason=None", "running"),
        ("JobId=7 JobName=x JobState=FAILED Reason=NonZeroExitCode", "failed"),
        ("JobId=7 JobName=x JobState=TIMEOUT Reason=TimeLimit", "failed"),
        ("JobId=7 JobName=x JobState=NODE_FAIL Reason=None", "failed"),
        ("JobId=7 JobName=x JobState=OUT_OF_MEMORY Reason=OutOfMemory", "failed"),
        ("JobId=7 JobName=x JobState=CANCELLED Reason=None", "failed"),
    ],
)
def test_states_of_slurm_are_told_to_the_generic_executor(tmp_path, said, state):
    environment = program(tmp_path, "scontrol", f"#!/bin/sh\necho '{said}'\n")
    assert status(GENERIC, environment) == state


@pytest.mark.parametrize(
    ("scontrol", "sacct", "state"),
    [
        ('test "$1" = ping', "echo COMPLETED", "success"),
        ('test "$1" = ping', "echo 'CANCELLED by 0'", "failed"),
        ('test "$1" = ping', "exit 1", "failed"),
        ("exit 1", "exit 1", "running"),
    ],
    ids=["accounting knows it", "accounting has it cancelled", "nobody knows it", "Slurm is away"],
)
def test_a_job_that_slurm_forgot_is_not_one_that_slurm_cant_be_asked_about(
    tmp_path, scontrol, sacct, state
):
    program(tmp_path, "sacct", f"#!/bin/sh\n{sacct}\n")
    assert status(GENERIC, program(tmp_path, "scontrol", f"#!/bin/sh\n{scontrol}\n")) == state


@pytest.mark.parametrize(
    ("kubectl", "state"),
    [
        ("echo 'there 1/'", "success"),
        ("echo 'there /'", "running"),
        ("echo 'there /1'", "failed"),
        ("true", "failed"),
        ("exit 1", "running"),
    ],
    ids=["succeeded", "under way", "failed", "deleted", "no answer"],
)
def test_states_of_kubernetes_are_told_to_the_generic_executor(tmp_path, kubectl, state):
    environment = program(tmp_path, "kubectl", f"#!/bin/sh\n{kubectl}\n")
    assert status(KUBERNETES, environment) == state


def status(profile: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [profile / "status.sh", "7"], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_training_runs_as_a_job_of_kubernetes_with_an_npu(finished, tmp_path):
    if find_spec("snakemake_executor_plugin_cluster_generic") is None:
        lacking("KUBERNETES PROFILE NOT RUN: pip install -r envs/dev.txt")
    checkout = finished.without(tmp_path / "pods", "baseline")
    state = tmp_path / "state"
    state.mkdir()
    environment = program(tmp_path, "kubectl", KUBECTL.format(python=sys.executable))
    subprocess.run(
        [sys.executable, "-m", "snakemake", "--profile", "profiles/kubernetes",
         "--seconds-between-status-checks", "1", "--", "results/baseline/finetune.json"],
        cwd=checkout.path, check=True, capture_output=True,
        env=environment | {"KUBECTL_STATE": str(state)},
    )  # fmt: skip
    assert checkout.read(MODEL) == finished.read(MODEL)
    [path] = state.glob("*.json")
    job = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert path.name.startswith("mindtune-finetune-model-")
    assert job["spec"]["activeDeadlineSeconds"] == 1440 * 60
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {
        "cpu": 24, "memory": "64000M", "huawei.com/Ascend910": 1
    }  # fmt: skip


@pytest.mark.parametrize(
    "recipe", sorted((ROOT / "containers").glob("*.Dockerfile")), ids=lambda path: path.stem
)
def test_container_recipes_pass_hadolint(recipe):
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        lacking("CONTAINER RECIPES NOT LINTED: there is no hadolint; pip install -r envs/dev.txt")
    done = subprocess.run([hadolint, recipe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
