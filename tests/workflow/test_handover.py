"""Jobs of a cluster work with the settings of the run that submitted them, whatever is edited."""

import json
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
from lacking import lacking
from workflow.conftest import SMALL, merged
from workflow.test_kill import MODEL

FINETUNE = "results/baseline/finetune.json"
PROVENANCE = "results/baseline/provenance.json"
# A submit command whose jobs wait in the queue until there is a file `go`.
QUEUE = """#!/bin/sh
(
  while [ ! -e go ]; do sleep 0.1; done
  exec sh "$1"
) > "queue-$$.log" 2>&1 < /dev/null &
echo $$
"""


class Cluster:
    """A run whose jobs are submitted, and wait."""

    def __init__(self, checkout, *targets):
        self.checkout = checkout
        (checkout.path / "queue.sh").write_text(QUEUE)
        self.output = checkout.path / "said.txt"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", "--executor", "cluster-generic", "--jobs", "2",
                 "--cluster-generic-submit-cmd", "sh queue.sh", "--show-failed-logs",
                 "--seconds-between-status-checks", "1", "--", *targets],
                cwd=checkout.path, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        end = time.monotonic() + 600
        while not list(checkout.path.glob("queue-*.log")):
            assert self.process.poll() is None and time.monotonic() < end, self.said()
            time.sleep(0.05)

    def said(self):
        logs = [self.output, *self.checkout.path.glob("queue-*.log")]
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in logs)

    def goes(self, good=True):
        (self.checkout.path / "go").touch()
        assert (self.process.wait(timeout=600) == 0) == good, self.said()
        return self.said()


@pytest.fixture
def queued(finished, tmp_path):
    """Begin a run on a cluster, in a copy of the finished run without `baseline`."""
    if find_spec("snakemake_executor_plugin_cluster_generic") is None:
        lacking("HANDING OVER NOT TESTED: pip install -r envs/dev.txt")
    started = []

    def start(target):
        checkout = finished.without(tmp_path / "mine", "baseline")
        started.append(Cluster(checkout, target))
        return started[-1]

    yield start
    for cluster in started:
        if cluster.process.poll() is None:
            cluster.process.kill()


def learning_rate(checkout):
    return json.loads(checkout.read(PROVENANCE))["config"]["train"]["lr"]


def test_an_edit_while_jobs_wait_changes_nothing_in_their_run(queued, finished):
    cluster = queued(PROVENANCE)
    checkout = cluster.checkout
    checkout.configure(merged(SMALL, {"train": {"lr": 4e-3}, "answer": {"max_new_tokens": 3}}))
    cluster.goes()
    assert checkout.read(MODEL) == finished.read(MODEL)
    assert learning_rate(checkout) == 0.001
    # Snakemake knows with what it was made: the edit runs it again, taking it back doesn't.
    rules = [job.rule for job in checkout.asked(FINETUNE)[0].needed()]
    assert rules == ["finetune_model"]
    checkout.configure(SMALL)
    assert checkout.asked(PROVENANCE)[0].needed() == []


def test_nor_does_a_file_that_is_half_edited_or_code_that_no_job_uses(queued, finished):
    cluster = queued(FINETUNE)
    (cluster.checkout.path / "config/config.yaml").write_text("train: {lr: [")
    path = cluster.checkout.path / "scripts/mindtune/comparison/tables.py"
    path.write_text(path.read_text(encoding="utf-8") + "\n# an edit\n", encoding="utf-8")
    cluster.goes()
    assert cluster.checkout.read(MODEL) == finished.read(MODEL)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "scripts/mindtune/engines/hf/schedule.py",
            "scripts/mindtune/engines/hf/schedule.py changed",
        ),
        ("rules/training.smk", "training.smk changed"),
    ],
)
def test_a_job_whose_code_was_edited_says_so_and_does_nothing(queued, name, said):
    cluster = queued(FINETUNE)
    path = cluster.checkout.path / name
    path.write_text(path.read_text(encoding="utf-8") + "\n# an edit\n", encoding="utf-8")
    printed = cluster.goes(good=False)
    assert f"{said} after this job was submitted; give the same command again" in printed
    assert "Traceback" not in printed
    assert not (cluster.checkout.path / "results/baseline/save_dir").exists()
