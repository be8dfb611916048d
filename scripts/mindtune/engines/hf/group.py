"""Training on several devices: a process for each, started by torchrun and watched by this one.

The first process keeps `loss.csv` and the checkpoints, and says in lines of JSON what happens; this
one shows it, and ends all when one of them fails. What they did is judged by what is on the disk.
"""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtune.divergence import Diverged
from mindtune.engines.launching import OFFLINE, Launch, Processes, exported
from mindtune.engines.requests import FinetuneJob
from mindtune.errors import UserError
from mindtune.files import write_json
from mindtune.process import ended
from mindtune.progress import Progress

if TYPE_CHECKING:
    from mindtune.settings.sections.hf import Hf

log = logging.getLogger(__name__)

PROGRAM = Path(__file__).parent / "programs" / "finetune.py"
SCRIPTS = Path(__file__).resolve().parents[3]
# In save_dir: what the run was started with, which goes aside with it.
RUN = "run"
# Begins a line that is for the process which watches.
MARK = "mindtune: "


def write_request(job: "FinetuneJob[Hf]", begun: int, path: Path) -> None:
    """Keep a job that goes on from iteration `begun` as JSON, for the processes that do it."""
    plain = {name: value for name, value in job.plain().items() if name != "followers"}
    paths = {name: str(value.resolve()) for name, value in plain.items() if isinstance(value, Path)}
    write_json(path, {"begun": begun, "paths": paths, "others": {
        name: value for name, value in plain.items() if name not in paths}})  # fmt: skip


def read_request(path: Path) -> "tuple[FinetuneJob[Hf], int]":
    """What `write_request` kept; whoever follows the job is told by the lines of `Said`."""
    plain = json.loads(path.read_text(encoding="utf-8"))
    paths = {name: Path(value) for name, value in plain["paths"].items()}
    return FinetuneJob.of("hf", **plain["others"], **paths, followers=Said()), plain["begun"]


class Said:
    """What the first process says, as lines; and it follows the training's table in that."""

    def say(self, **what: Any) -> None:
        # At once, in one call: lines of several processes come through one pipe.
        sys.stdout.write(f"{MARK}{json.dumps(what, ensure_ascii=False)}\n")
        sys.stdout.flush()

    def begin(self, iteration: int, rows: Sequence[Mapping[str, Any]]) -> None:
        self.say(begin=[iteration, rows])

    def append(self, row: Mapping[str, Any]) -> None:
        self.say(row=row)


@dataclass(kw_only=True)
class Listener:
    """Hears the lines of the processes, and keeps the first sentence of what went wrong."""

    job: "FinetuneJob[Hf]"
    shown: Progress
    failure: UserError | None = None

    def hear(self, line: str) -> None:
        if not line.startswith(MARK):
            return
        said = json.loads(line.removeprefix(MARK))
        followers = self.job.followers
        if "row" in said:
            self.shown.advance(note=f"loss {float(said['row']['loss']):.4f}")
            if followers:
                followers.append(said["row"])
        elif "begin" in said and followers:
            followers.begin(*said["begin"])
        elif "diverged" in said:
            self.failure = self.failure or Diverged(*said["diverged"], self.job.train)
        elif "mistake" in said:
            self.failure = self.failure or UserError(said["mistake"])


def train_together(job: "FinetuneJob[Hf]", begun: int) -> None:
    """Train from iteration `begun` on all devices of all nodes.

    Raises
    ------
    UserError: a process failed, with its own sentence where it had one.
    """
    run = (job.save_dir / RUN).resolve()
    run.mkdir(parents=True, exist_ok=True)
    write_request(job, begun, run / "job.json")
    machine, operation = job.machine, job.operation
    processes = Processes(
        "hf", machine.devices, machine.nodes,
        tuple(operation.hosts), operation.master_port,
    )  # fmt: skip
    setup = exported(
        {
            "PYTHONPATH": str(SCRIPTS),
            "OMP_NUM_THREADS": str(machine.threads),
            **OFFLINE,
        }
    )
    launch = Launch(
        run, Path(sys.executable), [str(PROGRAM)], [str(run / "job.json")], processes, setup
    )
    log.info("the launch is %s", run / "launch.sh")
    with Progress("training", "iterations", job.train.train_iters, begun) as shown:
        listener = Listener(job=job, shown=shown)
        status = launch.run(listener.hear)
    if listener.failure:
        raise listener.failure
    if status:
        raise UserError(
            f"one of the {processes.per_node * processes.nodes} processes of the training failed, which "
            f"then {ended(status)}; its own words are in the log. The same command goes on from the "
            "newest checkpoint."
        )
