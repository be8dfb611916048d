"""A thousand experiments: what is to be done is known in seconds."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from workflow.conftest import SMALL, Checkout

NUMBER = 1000
SECONDS, KIBIBYTES = 30, 1024**2


def waited_for(pid):
    """A child's exit status, what it used, and its highest memory in KiB.

    `ru_maxrss` would do, were it not at least the memory of this process, from which it forked.
    """
    peak = 0
    while True:
        ended, status, used = os.wait4(pid, os.WNOHANG)
        if ended:
            return status, used, peak
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        peak = max(peak, int(found[1])) if found else peak
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("overlay", "jobs"),
    [
        pytest.param(
            lambda n: {"train": {"seed": n}},
            {"convert_data": 1, "finetune_model": NUMBER},
            marks=pytest.mark.long,  # less work than the other; test_report.py has what is shared
        ),
        # None shares anything with another, which has to be found out.
        (
            lambda n: {"data": {"split_seed": n}},
            {"convert_data": NUMBER, "answer_prompts": 2000, "finetune_model": NUMBER},
        ),
    ],
    ids=["own trainings", "own data"],
)
def test_a_thousand_experiments_are_planned_in_seconds(tmp_path, overlay, jobs):
    others = {f"e{n:04d}": overlay(n + 2) for n in range(NUMBER - 1)}
    checkout = Checkout.make(
        tmp_path / "many", {**SMALL, "experiments": {"baseline": {}, **others}}
    )
    said = tmp_path / "said.txt"
    with said.open("w") as output:
        process = subprocess.Popen(
            checkout.command("--dry-run", "--quiet", "rules", "--", "results/compare.csv"),
            cwd=checkout.path, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    status, used, peak = waited_for(process.pid)
    assert status == 0, said.read_text()
    # Of the processor, so that a busy machine fails no test.
    assert used.ru_utime + used.ru_stime <= SECONDS
    assert peak <= KIBIBYTES
    planned = dict(line.split() for line in said.read_text().splitlines() if len(line.split()) == 2)
    assert {rule: int(planned[rule]) for rule in jobs} == jobs
