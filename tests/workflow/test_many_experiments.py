"""A thousand experiments: what is to be done is known in seconds."""

import os
import subprocess

import pytest
from workflow.conftest import SMALL, Checkout

NUMBER = 1000
SECONDS, KIBIBYTES = 30, 1024**2


@pytest.mark.parametrize(
    ("overlay", "jobs"),
    [
        (lambda n: {"train": {"seed": n}}, {"convert_data": 1, "finetune_model": NUMBER}),
        # None shares anything with another, which has to be found out.
        (lambda n: {"data": {"split_seed": n}}, {"convert_data": NUMBER, "answer_prompts": 2000}),
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
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, said.read_text()
    # Of the processor, so that a busy machine fails no test.
    assert used.ru_utime + used.ru_stime <= SECONDS
    assert used.ru_maxrss <= KIBIBYTES
    planned = dict(line.split() for line in said.read_text().splitlines() if len(line.split()) == 2)
    assert {rule: int(planned[rule]) for rule in jobs} == jobs
