"""What starts the framework: quoting, variables, one node and several, and its end."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ascend.values import LAUNCH, OPERATION
from mindtune.engines.launching import Processes, master_address
from mindtune.engines.mindspeed.arguments import World
from mindtune.engines.mindspeed.launching import TRAINING, environment_of, framework_launch
from mindtune.engines.mindspeed.machine import Machine
from mindtune.errors import UserError
from mindtune.settings.typed import typed

SCONTROL = """#!/bin/sh
case "$2 $3" in
  "hostnames n[1-2]") printf "n1\\nn2\\n" ;;
  "node n1") echo "NodeName=n1 Arch=x86_64 NodeAddr=10.0.0.1 NodeHostName=n1" ;;
  "job 7") echo "JobId=7 ReqNodeList=(null) ExcNodeList=(null) NodeList=n[1-2] BatchHost=n1" ;;
  *) exit 1 ;;
esac
"""


def machine_of(played) -> Machine:
    return Machine.read(played.here / "machine.json", typed("mindspeed", OPERATION))


def launch_of(played, world=None, machine=None, program=("/p/pretrain_vlm.py",)):
    return framework_launch(
        played.here, program, ["--x", "a b; $(touch hacked)"], machine or machine_of(played),
        world or World(2, 1, 1, 1), environment_of(TRAINING, LAUNCH["environment"]),
    )  # fmt: skip


def test_nothing_in_a_script_is_run_but_what_is_meant(played):
    (played.here / "x.py").write_text(
        "import sys, os, json\nprint(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]))\n"
    )
    machine = replace(
        machine_of(played), python=Path(sys.executable), stand_in=played.here / "st and"
    )
    launch = launch_of(played, machine=machine, program=[str(played.here / "x.py")])
    launch = replace(launch, processes=None)
    said = []
    assert launch.run(said.append) == 0
    arguments, environment, where = json.loads(said[-1])
    assert arguments == ["--x", "a b; $(touch hacked)"]
    assert where == str(played.here)
    assert not list(played.here.rglob("hacked"))
    assert environment["GREETING"] == "good day; $HOME"
    assert environment["MADE_BY"] == "set_env.sh"
    assert environment["MINDTUNE_STANDIN"] == "1" and environment["OMP_NUM_THREADS"]
    # The stand-in first, then the framework, then what CANN's script put there; nothing of ours.
    home = machine.home
    assert environment["PYTHONPATH"].split(":") == [
        str(played.here / "st and"), str(home), str(home / "MindSpeed"), "/cann/python"
    ]  # fmt: skip
    assert "VIRTUAL_ENV" not in environment
    assert environment["PATH"].split(":")[0] == str(machine.python.parent)


def test_a_start_leaves_no_folders(played):
    """torchrun makes folders in its --log_dir, by default in /tmp for each start."""
    launch = launch_of(played)
    said = []
    words = shlex.split(launch.script().splitlines()[-1])
    place = Path(words[words.index("--log_dir") + 1])
    assert place.name == ".torchrun"
    (played.here / "x.py").write_text(
        "import pathlib; pathlib.Path('.torchrun/one').mkdir(parents=True)\n"
    )
    machine = replace(machine_of(played), python=Path(sys.executable))
    made = launch_of(played, machine=machine, program=[str(played.here / "x.py")])
    assert replace(made, processes=None).run(said.append) == 0
    assert not (played.here / ".torchrun").exists()


def test_the_tutorials_variables_are_set_and_the_users_win(played):
    made = environment_of(TRAINING, {"HCCL_CONNECT_TIMEOUT": "7200"})
    assert made["HCCL_CONNECT_TIMEOUT"] == "7200"
    assert made["CUDA_DEVICE_MAX_CONNECTIONS"] == "1" and made["ASCEND_LAUNCH_BLOCKING"] == "0"


def test_two_launches_of_a_node_take_two_ports(played):
    ports = {
        script.split("--master_port ")[1].split()[0]
        for script in (launch_of(played).script(), launch_of(played).script())
    }
    assert len(ports) == 2


def test_several_hosts_get_one_torchrun_each(played):
    machine = replace(machine_of(played), hosts=("node-a", "node-b"), master_port=6001)
    launch = launch_of(played, World(8, 2, 2, 2), machine)
    commands = launch.commands(launch.write())
    assert [command[:5] for command in commands] == [
        ["ssh", "-tt", "-o", "BatchMode=yes", host] for host in ("node-a", "node-b")
    ]
    assert [command[5].split()[-1] for command in commands] == ["0", "1"]
    script = launch.script()
    assert "--nproc_per_node 8 --nnodes 2 --master_addr node-a --master_port 6001" in script
    # What ssh hands to a shell over there names the script as one word.
    subprocess.run(["bash", "-c", f"set -- {commands[1][5]}; test $# = 3"], check=True)


def test_a_slurm_job_gives_the_nodes(played, monkeypatch, tmp_path):
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(SCONTROL)
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    check(launch_of(played, World(8, 2, 1, 1)))
    with pytest.raises(UserError, match="but the Slurm job has 2"):
        master_address(Processes("mindspeed", 8, 3))
    monkeypatch.delenv("SLURM_JOB_NODELIST")  # as Snakemake's executor does
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    check(launch_of(played, World(8, 2, 1, 1)))


def check(launch):
    (command,) = launch.commands(launch.write())
    assert command[:4] == ["srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1"]
    assert "--master_addr 10.0.0.1 --master_port 6000" in launch.script()


def test_several_nodes_without_slurm_or_hosts_are_refused(played, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    monkeypatch.delenv("SLURM_NODELIST", raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match=r"mindspeed\.hosts is empty"):
        launch_of(played, World(8, 2, 1, 1)).script()


def test_a_mistake_that_is_heard_ends_all_processes(played):
    played.play(say=["bad news"], wait=600)
    launch = replace(launch_of(played), processes=None, program=["pretrain_vlm.py"])

    def heard(line):
        if line:
            raise UserError(line)

    begun = time.monotonic()
    with pytest.raises(UserError, match="bad news"):
        launch.run(heard)
    assert time.monotonic() - begun < 20
    assert not running(played.here)


def test_the_framework_dies_with_us_however_we_die(played):
    played.play(say=["here"], wait=600)
    code = f"""
import sys; sys.path[:0] = {sys.path!r}
from pathlib import Path
from mindtune.engines.mindspeed.launching import framework_launch
from mindtune.engines.mindspeed.machine import Machine
from mindtune.settings.typed import typed
here = Path({str(played.here)!r})
machine = Machine.read(here / "machine.json", typed("mindspeed", {OPERATION!r}))
launch = framework_launch(here, ["pretrain_vlm.py"], [], machine)
launch.run(lambda line: line and print(line, flush=True))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "here\n"
    assert running(played.here)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for _ in range(100):
        if not running(played.here):
            break
        time.sleep(0.1)
    assert not running(played.here)


def running(here) -> list[int]:
    """Processes of the played framework whose working directory is here."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            where = (process / "cwd").readlink()
            state = (process / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if where == here and state != "Z" and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found
