"""A training that is killed goes on, and ends with the bytes of one that was not."""

import os
import random
import re
import signal
import subprocess
import sys
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


def wait_for(path, process, seconds=600):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end, f"{path} never appeared"
        time.sleep(0.005)


@pytest.mark.parametrize("target", ["Snakemake alone", "all of it"])
def test_killed_and_resumed_gives_the_bytes_of_an_undisturbed_run(finished, tmp_path, target):
    checkout = finished.without(tmp_path / "killed", "baseline")
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


@pytest.mark.long
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


DONE = "results/baseline/finetune.json"
ONE = merged(SMALL, {"experiments": {"hot": None}})


def stamps(checkout):
    """When each checkpoint was written; a rename changes nothing of it."""
    return {
        path.parent.parent.name: path.stat().st_mtime_ns
        for path in (checkout.path / "results/baseline/save_dir").glob("iter_*/*/*.pt")
    }


def test_settings_that_come_back_find_their_checkpoints(finished, tmp_path):
    """save_dir is a link, as to a scratch disk; nothing is trained twice."""
    checkout = Checkout.make(tmp_path / "other", ONE)
    scratch = tmp_path / "scratch" / "of me"
    scratch.mkdir(parents=True)
    (checkout.path / "results/baseline").mkdir(parents=True)
    (checkout.path / "results/baseline/save_dir").symlink_to(scratch)
    checkout.snakemake(DONE)
    first, written = checkout.read(MODEL), stamps(checkout)
    assert first == finished.read(MODEL)
    checkout.configure(merged(ONE, {"train": {"lr": 4e-3}}))
    said = checkout.snakemake(DONE)
    assert "holds checkpoints of other settings: put aside" in said
    assert "from the base model" in said
    assert "(train.lr 0.001 -> 0.004); iteration 2 would have had a learning rate of" in said
    second, written_second = checkout.read(MODEL), stamps(checkout)
    assert second != first
    for change, model, times in (
        ({}, first, written),
        ({"train": {"lr": 4e-3}}, second, written_second),
        ({}, first, written),
    ):
        checkout.configure(merged(ONE, change))
        said = checkout.snakemake("results/baseline/hf")
        assert "iteration 6 is there already: nothing to train" in said
        assert checkout.read(MODEL) == model and stamps(checkout) == times
    assert (checkout.path / "results/baseline/save_dir").readlink() == scratch
    weights = [path.name for path in (finished.path / "results/baseline/hf").glob("*.safetensors")]
    for name in weights:
        file = f"results/baseline/hf/{name}"
        assert checkout.read(file) == finished.read(file)
    assert weights
    said = subprocess.run(
        [sys.executable, "scripts/clean.py"], cwd=checkout.path, text=True, capture_output=True,
        check=True,
    ).stdout  # fmt: skip
    assert "3 checkpoints to iteration 6; now -> there: train.lr 0.001 -> 0.004" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hf": {"device": "cuda:7"}}, "hf.device is cuda:7"),
        ({"train": {"seed": 2**32}}, "train.seed is 4294967296"),
        ({"sources": {"model": {"use": "path", "path": "no/model"}}}, "no/model"),
        ({"train": {"lr": 1e30, "clip_grad": 0.0}}, "train.lr"),  # fails as it trains
    ],
    ids=["device", "seed", "model", "lr"],
)
def test_a_mistake_costs_no_finished_training(finished, tmp_path, change, words):
    checkout = finished.without(tmp_path / "copy", "hot")
    first, written = checkout.read(MODEL), stamps(checkout)
    checkout.configure(merged(ONE, change))
    said = checkout.snakemake(DONE, fails=True)
    assert words in said and "Traceback" not in said
    assert change.get("train", {}).get("lr") or stamps(checkout) == written
    checkout.configure(ONE)
    checkout.snakemake(DONE)
    assert checkout.read(MODEL) == first and stamps(checkout) == written


def test_a_loader_that_the_kernel_ended_is_told_as_that(finished, tmp_path):
    checkout = finished.without(tmp_path / "memory", "baseline")
    process = start(checkout, DONE)
    wait_for(checkout.path / "results/baseline/save_dir/iter_0000002", process)
    job, _ = chaos.job_of(process.pid)
    for child in job.children(recursive=True):
        child.kill()
    assert process.wait(timeout=120) == 1
    log = (checkout.path / "logs/finetune_model/baseline.log").read_text()
    assert "ended by signal 9 (SIGKILL: memory ran out, most likely)" in log
    assert "an error of the program" not in log
    checkout.snakemake(DONE)
    assert checkout.read(MODEL) == finished.read(MODEL)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_of_it_leaves_checkpoints_to_go_on_from(finished, tmp_path, signal_number):
    checkout = finished.without(tmp_path / "signalled", "baseline")
    process = start(checkout, "results/baseline/finetune.json")
    wait_for(checkout.path / "results/baseline/save_dir/iter_0000004", process)
    os.killpg(process.pid, signal_number)
    process.wait(timeout=120)
    log = (checkout.path / "logs/finetune_model/baseline.log").read_text()
    assert f"stopped by signal {signal_number} ({signal_number.name}); the same command" in log
    assert "an error of the program" not in log
    checkout.snakemake("results/baseline/finetune.json")
    assert checkout.read(MODEL) == finished.read(MODEL)


ANSWERS = "results/shared/answers_before.jsonl"


def test_a_killed_answering_goes_on_and_ends_with_the_answers_of_an_undisturbed_one(
    finished, tmp_path
):
    """One prompt at a time, so that a kill falls between two of them."""
    checkout = finished.without(tmp_path / "answering", "hot")
    checkout.configure(
        merged(ONE, {"answer": {"batch_size": 1}, "prompts": {"held_out_questions": 40}})
    )
    checkout.snakemake(ANSWERS)
    undisturbed = without_times("answers_before.jsonl", checkout.read(ANSWERS))
    (checkout.path / ANSWERS).unlink()
    process = start(checkout, ANSWERS)
    shared = checkout.path / "results/shared"
    end = time.monotonic() + 600
    while not (found := list(shared.glob(".answers_before.jsonl.*.journal"))):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end, "no answer was kept"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (checkout.path / ANSWERS).exists()
    said = checkout.tool("clean")
    kept = int(re.search(r"GB, (\d+) of (\d+) answers of an interrupted answering", said)[1])
    said = checkout.snakemake(ANSWERS)
    assert kept and re.search(rf"{kept} of \d+ answers are there already; the others follow", said)
    assert without_times("answers_before.jsonl", checkout.read(ANSWERS)) == undisturbed
    assert not found[0].exists() and "interrupted answering" not in checkout.tool("clean")
