"""The Slurm that start.sh starts, and a run of the workflow that uses it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
from workflow.conftest import Checkout

HERE = Path(__file__).parent
EXECUTORS = ("slurm", "cluster_generic")
NEEDED = ("slurmctld", "slurmd", "munged", "sbatch")


def unavailable() -> str | None:
    """Why no Slurm can be started here, in a sentence."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent:
        return f"there is no {', no '.join(absent)}: run tests/slurm/install.sh"
    if any(find_spec(f"snakemake_executor_plugin_{name}") is None for name in EXECUTORS):
        return "the executors are not installed: pip install -r envs/dev.txt"
    if os.geteuid() != 0:
        return "they start daemons and want root"
    remove_leftovers()
    if Path("/etc/slurm/slurm.conf").exists():
        return "this machine has a Slurm already, which is left alone"
    return None


def remove_leftovers() -> None:
    """Remove the links of a Slurm of these tests that was killed with them."""
    if any(process.info["name"] == "slurmctld" for process in psutil.process_iter(["name"])):
        return
    for name in ("slurm", "gres", "cgroup"):
        link = Path(f"/etc/slurm/{name}.conf")
        if link.is_symlink() and link.readlink().parents[1].name.startswith("slurm-"):
            link.unlink()


def start(state: Path) -> None:
    subprocess.run([HERE / "start.sh", state], check=True, timeout=60)


def stop(state: Path) -> None:
    subprocess.run([HERE / "stop.sh", state], check=True, timeout=120)


def kill_stragglers(below: Path) -> None:
    """Kill jobs that run in checkouts below a directory.

    Without cgroups the batch process of a job whose node went down can outlive it.
    """
    for process in psutil.process_iter(["cmdline", "cwd"]):
        place, command = process.info["cwd"] or "", process.info["cmdline"] or []
        if "slurm-jobstep" in command and place.startswith(f"{below}/"):
            process.kill()


def wait_until(what: Callable[[], object], seconds: float = 300) -> object:
    """What `what` returns, once it is true."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"nothing came of it in {seconds} s"
        time.sleep(0.05)
    return found


@dataclass(frozen=True)
class Job:
    """A job as squeue lists it; `comment` has the rule and the wildcards."""

    number: str
    state: str
    comment: str
    folder: str
    reason: str


def jobs() -> list[Job]:
    """Every job that Slurm remembers."""
    listed = subprocess.run(
        ["squeue", "--noheader", "--states=all", "--format=%i|%T|%k|%Z|%r"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return [Job(*line.split("|")) for line in listed.splitlines()]


def state_of(number: str) -> str:
    return next(job.state for job in jobs() if job.number == number)


def set_node(name: str, state: str) -> None:
    why = ["reason=test"] if state == "down" else []
    subprocess.run(["scontrol", "update", f"nodename={name}", f"state={state}", *why], check=True)


class Run:
    """The workflow in a checkout, run through a profile, in the background."""

    def __init__(self, checkout: Checkout, profile: str, *arguments: str) -> None:
        self.checkout = checkout
        self.output = checkout.path / f"said-{time.monotonic_ns()}.txt"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", "--profile", profile, *arguments],
                cwd=checkout.path, stdout=output, stderr=subprocess.STDOUT,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )  # fmt: skip

    def jobs(self, rule: str = "") -> list[Job]:
        """The jobs of this checkout, the newest last."""
        mine = [job for job in jobs() if job.folder == str(self.checkout.path)]
        return sorted(
            (job for job in mine if job.comment.startswith(f"rule_{rule}")),
            key=lambda job: int(job.number),
        )

    def training(self, experiment: str, state: str = "RUNNING", seconds: float = 300) -> Job:
        """The newest training of an experiment, once it is in that state."""

        def found() -> Job | None:
            wanted = f"rule_finetune_model_wildcards_{experiment}"
            mine = [job for job in self.jobs() if job.comment == wanted]
            return mine[-1] if mine and mine[-1].state == state else None

        return wait_until(found, seconds)

    def checkpoint(self, experiment: str) -> None:
        """Wait for the first checkpoint of a training."""
        path = self.checkout.path / f"results/{experiment}/save_dir/iter_0000002"
        wait_until(lambda: path.exists() or self.process.poll() is not None)
        assert path.exists(), self.said()

    def hang(self) -> None:
        """Stop the training where it stands, as a file system that hangs does."""
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if command[-1:] and re.search(r"finetune_model\.py$", command[-1]):
                try:
                    mine = process.cwd() == str(self.checkout.path)
                except psutil.NoSuchProcess:
                    continue
                if mine:
                    process.suspend()
                    return
        raise AssertionError(f"there is no training to hang: {self.said()}")

    def said(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def ends(self, good: bool = True, seconds: float = 600) -> str:
        """Wait for its end; returns all it printed."""
        status = self.process.wait(timeout=seconds)
        assert (status == 0) == good, self.said()
        return self.said()
