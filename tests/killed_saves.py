"""Trainings that end themselves by SIGKILL while a checkpoint is written; for tests/unit/test_saving.py.

The moments are counted, not timed: each is a call by which the saving thread changes the disk. All
trainings are forks of a process that has imported everything and computed nothing.
"""

import csv
import json
import multiprocessing
import os
import random
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

from mindtune.checkpoint.megatron import iterations, read_tracker
from mindtune.engines import stage
from unit.test_finetune import job_of

SMALL = {
    "train_iters": 3, "save_interval": 1, "eval_iters": 0, "micro_batch_size": 1,
    "global_batch_size": 1, "lr_decay_style": "constant",
}  # fmt: skip
CHANGES = ("mkdir", "ftruncate", "pwrite", "fsync", "replace", "rename", "unlink", "rmdir")


class Count:
    """Counts the saving thread's changes of the disk, and kills this process in the middle of one."""

    def __init__(self, moment: int | None) -> None:
        self.moment, self.done = moment, 0
        for name in CHANGES:
            setattr(os, name, self.counted(name, getattr(os, name)))

    def counted(self, name, real):
        def call(*arguments, **named):
            if threading.current_thread() is not threading.main_thread():
                self.done += 1
                if self.done == self.moment:
                    if name == "pwrite":
                        fd, data, offset = arguments
                        real(fd, data[: len(data) // 2], offset)
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return call


def trained(place: Path, save_dir: Path, moment: int | None = None) -> int:
    """Train in a fork; its status as of `os.waitpid`."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        count = Count(moment)
        save_dir.mkdir(exist_ok=True)
        stage("hf", "finetune")(replace(job_of(place, save_dir, **SMALL), keep="last"))
        (save_dir / "calls").write_text(str(count.done))
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def result(save_dir: Path) -> list:
    """What must not differ: the last checkpoint, and the lines of loss.csv less the times."""
    with open(save_dir / "loss.csv", newline="") as handle:
        rows = [(row["iteration"], row["loss"], row["grad_norm"]) for row in csv.DictReader(handle)]
    return [(save_dir / "iter_0000003/mp_rank_00/model_optim_rng.pt").read_bytes(), rows]


def left(save_dir: Path) -> dict:
    """After a kill: the checkpoints that have a name, the tracker's, and the last line of loss.csv."""
    with open(save_dir / "loss.csv", newline="") as handle:
        last = max((int(row["iteration"]) for row in csv.DictReader(handle)), default=0)
    tracked = save_dir / "latest_checkpointed_iteration.txt"
    return {
        "whole": iterations(save_dir),
        "tracked": read_tracker(save_dir) if tracked.exists() else 0,
        "lines": last,
    }


def main(place: Path, work: Path, kills: int, seed: int) -> None:
    """Kill so many trainings, and write what was found to work/kills.json.

    place: made by the fixture `place` of tests/unit/test_finetune.py.
    """
    multiprocessing.set_start_method(None, force=True)  # as if nobody had forked this from a server
    assert trained(place, work / "whole") == 0
    calls = int((work / "whole/calls").read_text())
    rng, kept = random.Random(seed), []
    for number in range(kills):
        save_dir, moment = work / str(number), rng.randint(1, calls)
        status = trained(place, save_dir, moment)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        found = left(save_dir)
        ended = trained(place, save_dir)
        same = ended == 0 and result(save_dir) == result(work / "whole")
        kept.append({"moment": moment, "killed": killed, "same": same, **found})
    (work / "kills.json").write_text(json.dumps(kept))
