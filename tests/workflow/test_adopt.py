"""scripts/adopt.py in a finished run: other code alone is taken over, and nothing else is."""

import fcntl
import json
import shutil
import subprocess
import sys

import pytest
from workflow.conftest import SMALL, merged

COMPARE = "results/compare.csv"
# It dies, as by SIGKILL, when it has written so many of its records.
DYING = """
import os, sys
sys.path.insert(0, "scripts")
import adopt
from mindtune.glue import made
left, write = [int(sys.argv[1])], made.adopt
def dying(*arguments):
    if not left[0]:
        os._exit(9)
    left[0] -= 1
    write(*arguments)
made.adopt = dying
adopt.main(["--yes"])
"""


def adopt(checkout, *arguments, status=0):
    return checkout.tool("adopt", *arguments, status=status)


def files(checkout, place):
    return {
        path.relative_to(checkout.path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in (checkout.path / place).rglob("*")
        if path.is_file() and path.name not in ("settings.json", ".gitkeep")
    }


def code_of(checkout, name="baseline"):
    return json.loads(checkout.read(f"results/{name}/save_dir/settings.json"))["code"]


@pytest.fixture
def upgraded(finished, tmp_path):
    """The finished run, and a comment more in a file of code that trains."""
    checkout = finished.without(tmp_path / "upgraded")
    with open(checkout.path / "scripts/finetune_model.py", "a", encoding="utf-8") as script:
        script.write("# reworded\n")
    return checkout


@pytest.mark.long
def test_results_of_other_code_are_kept_asked_for_and_taken_over(upgraded):
    before, code = files(upgraded, "results/baseline/save_dir"), code_of(upgraded)
    everything = files(upgraded, "results")
    assert upgraded.planned()["finetune_model"] == 2
    said = adopt(upgraded)
    assert "Of other code, and of no other settings" in said
    assert "results/baseline/save_dir (up to iteration 6" in said
    assert f"results/hot/loss.csv (finetune_model, code {code} -> " in said
    assert "scripts/finetune_model.py changed" in said and "Left as they are" not in said
    assert "say --yes" in said

    refused = upgraded.snakemake(COMPARE, fails=True)
    assert (
        "results/baseline/save_dir has checkpoints up to iteration 6 of the same settings"
        in refused
    )
    assert "python scripts/adopt.py" in refused and "results/hot/save_dir has" in refused
    assert files(upgraded, "results") == everything
    assert not (upgraded.path / "results/baseline/save_dir.superseded").exists()

    assert "Taken over from other code:" in adopt(upgraded, "--yes")
    assert "Nothing to be done" in upgraded.snakemake(COMPARE)
    assert files(upgraded, "results/baseline/save_dir") == before
    now = code_of(upgraded)
    done = json.loads(upgraded.read("results/baseline/finetune.json"))
    note = {"made_by": code, "iteration": 6, "adopted_as": now}
    settings = json.loads(upgraded.read("results/baseline/save_dir/settings.json"))
    assert now != code and done["adopted"] == settings["adopted"] == [note]
    assert done["fingerprint"] == settings["fingerprint"]

    assert adopt(upgraded, "--yes") == "Nothing is to be taken over.\n"
    upgraded.snakemake("results/baseline/provenance.json")
    recorded = json.loads(upgraded.read("results/baseline/provenance.json"))
    assert recorded["training"]["adopted"] == [note]
    assert recorded["adopted"] == {
        f"results/baseline/{name}": {"made_by": code, "adopted_as": now}
        for name in ("finetune.json", "loss.csv")
    }
    shutil.rmtree(upgraded.path / ".snakemake")  # the records beside the results say the same
    assert "Nothing to be done" in upgraded.snakemake(COMPARE)
    # And the training itself takes what was adopted for its own.
    (upgraded.path / "results/baseline/loss.csv").unlink()
    upgraded.snakemake("results/baseline/loss.csv")
    assert files(upgraded, "results/baseline/save_dir") == before


def test_what_differs_in_more_than_code_is_left(upgraded):
    upgraded.configure(merged(SMALL, {"experiments": {"hot": {"train": {"lr": 4e-3}}}}))
    said = adopt(upgraded, "--yes")
    taken, left = said.split("Left as they are")
    assert "results/baseline/save_dir" in taken and "results/hot" not in taken
    assert "results/hot/finetune.json, results/hot/loss.csv (finetune_model): " in left
    assert "experiments.hot.train.lr: 0.005 -> 0.004" in left and "results/baseline" not in left
    assert upgraded.planned()["finetune_model"] == 1


def test_a_kill_between_two_records_is_made_good_by_the_same_command(upgraded):
    for written in (0, 1, 3):
        done = subprocess.run(
            [sys.executable, "-c", DYING, str(written)], cwd=upgraded.path, check=False,
            capture_output=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 9, done.stderr
    assert "Taken over" in adopt(upgraded, "--yes")
    assert upgraded.planned() == {}
    notes = json.loads(upgraded.read("results/hot/finetune.json"))["adopted"]
    assert len(notes) == 1


def test_not_beside_a_snakemake_that_runs(upgraded):
    before = files(upgraded, "results")
    with open(upgraded.path / ".snakemake/mindtune.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert "Nothing is changed; give the same command again" in adopt(
            upgraded, "--yes", status=1
        )
    assert files(upgraded, "results") == before


def test_checkpoints_are_put_aside_when_that_is_asked_for(upgraded):
    said = adopt(upgraded, "--again", "nobody", status=1)
    assert "there are: baseline, hot." in said
    assert "save_dir.superseded" in adopt(upgraded, "--again", "hot")
    assert len([*(upgraded.path / "results/hot/save_dir.superseded").iterdir()]) == 1
    refused = upgraded.snakemake(COMPARE, fails=True)
    assert "results/baseline/save_dir has" in refused and "results/hot" not in refused
