"""A training that is killed goes on, and ends with the bytes of one that was not."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import chaos
import pytest
from chaos import without_times
from workflow.conftest import SMALL, Checkout, merged

# What `all` makes beside compare.csv, if another test has asked for it.
BESIDE = {
    "loss.svg", "scores.csv", "provenance.json", "metrics.csv", "report.html", "samples.png",
}  # fmt: skip
MODEL = "results/baseline/save_dir/iter_0000006/mp_rank_00/model_optim_rng.pt"


def start(checkout, *arguments):
    return subprocess.Popen(
        checkout.command(*arguments), cwd=checkout.path, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def wait_for(path, process, seconds=120):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end, f"{path} never appeared"
        time.sleep(0.005)


@pytest.mark.parametrize("target", ["Snakemake alone", "all of it"])
def test_killed_and_resumed_gives_the_bytes_of_an_undisturbed_run(finished, tmp_path, target):
    checkout = Checkout.make(tmp_path / "killed")
    checkout.snakemake("results/shared/mm", "results/shared/data/train.json")
    process = start(checkout, "results/baseline/hf")
    wait_for(checkout.path / "results/baseline/save_dir/iter_0000002", process)
    if target == "all of it":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()  # its job is left running, and notices
    said = checkout.snakemake("results/baseline/hf")
    process.wait()
    assert said.count("An earlier run was killed: its lock is removed") == 1
    log = (checkout.path / "logs/finetune_model/baseline.log").read_text()
    assert "from iteration 2" in log or "from iteration 4" in log
    assert checkout.read(MODEL) == finished.read(MODEL)
    assert without_times("loss.csv", checkout.read("results/baseline/loss.csv")) == without_times(
        "loss.csv", finished.read("results/baseline/loss.csv")
    )


def test_kills_at_random_moments_one_after_another(finished, tmp_path):
    """A run that is hit again and again ends like one that was not: `tests/chaos.py` has more."""
    checkout = Checkout.make(tmp_path / "chaos")
    rng = random.Random(1)
    for _ in range(4):
        kill = chaos.drawn(rng, 12)
        chaos.interrupt(checkout, kill)
        print(kill.line())
    chaos.go_on(checkout, kill)
    assert kill.different == ()
    undisturbed = {
        name: content
        for name, content in chaos.contents(finished.path).items()
        if not BESIDE & {Path(name).name, Path(name).stem}  # the record is named NAME.json
    }
    assert chaos.differences(chaos.contents(checkout.path), undisturbed) == ()


def test_checkpoints_of_other_settings_are_put_aside_and_not_continued(finished, tmp_path):
    config = merged(SMALL, {"experiments": {"hot": None}})
    config["experiments"] = {"baseline": {}}
    checkout = Checkout.make(tmp_path / "other", config)
    checkout.snakemake("results/baseline/finetune.json")
    first = checkout.read(MODEL)
    assert first == finished.read(MODEL)
    checkout.configure(merged(config, {"train": {"lr": 4e-3}}))
    said = checkout.snakemake("results/baseline/finetune.json")
    assert (
        "holds checkpoints of other settings: put aside" in said and "from the base model" in said
    )
    assert "(train.lr 0.001 -> 0.004); iteration 2 would have had a learning rate of" in said
    assert checkout.read(MODEL) != first
    assert checkout.read(MODEL.replace("save_dir", "save_dir.superseded")) == first


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_of_it_leaves_checkpoints_to_go_on_from(finished, tmp_path, signal_number):
    checkout = Checkout.make(tmp_path / "signalled")
    checkout.snakemake("results/shared/mm", "results/shared/data/train.json")
    process = start(checkout, "results/baseline/finetune.json")
    wait_for(checkout.path / "results/baseline/save_dir/iter_0000004", process)
    os.killpg(process.pid, signal_number)
    process.wait(timeout=120)
    checkout.snakemake("results/baseline/finetune.json")
    assert checkout.read(MODEL) == finished.read(MODEL)
