"""What results were made with is known without `.snakemake`, or it is said that it isn't."""

import json
import shutil
from base64 import urlsafe_b64encode

import pytest
from mindtune.glue import made
from workflow.conftest import SMALL, Checkout, merged

COMPARE = "results/compare.csv"


@pytest.fixture
def copied(complete, tmp_path):
    """A checkout to which the results of the finished run were copied, and nothing else."""
    fresh = Checkout.make(tmp_path / "copied")
    shutil.copytree(complete.path / "results", fresh.path / "results")
    return fresh


def test_the_records_say_what_snakemakes_own_say(complete, monkeypatch):
    monkeypatch.chdir(complete.path)
    outputs = 0
    for path in complete.path.glob("results/**/*"):
        name = str(path.relative_to(complete.path))
        own = complete.path / ".snakemake/metadata" / urlsafe_b64encode(name.encode()).decode()
        if len(own.name) < 255 and own.exists():
            there = json.loads(own.read_text(encoding="utf-8"))
            assert made.recorded(name) == {key: there[key] for key in ("rule", "params", "input")}
            outputs += 1
    assert outputs == len([*complete.path.glob("results/.made/**/*.json")]) > 25


def test_a_copy_of_the_results_is_complete_and_after_an_edit_it_is_not(copied):
    assert "Nothing to be done" in copied.snakemake("all")
    copied.configure(merged(SMALL, {"compare": {"confidence": 0.9}}))
    said = copied.snakemake(COMPARE)
    assert "compare_answers" in said and "finetune_model" not in said
    assert "record of the settings" not in said
    assert "Nothing to be done" in copied.snakemake(COMPARE)
    shutil.rmtree(copied.path / ".snakemake")
    assert "Nothing to be done" in copied.snakemake(COMPARE)
    copied.configure(SMALL)
    assert copied.planned() == {"compare_answers": 1}


@pytest.mark.parametrize("content", [None, "{", "[]", '{"rule": "x", "params": 1, "input": []}'])
def test_results_without_a_record_are_named(copied, content):
    record = copied.path / "results/.made/baseline/finetune.json.json"
    record.unlink()
    if content is not None:
        record.write_text(content)
    copied.configure(merged(SMALL, {"train": {"lr": 4e-3}}))
    said = copied.snakemake("results/baseline/finetune.json")
    assert "Nothing to be done" in said
    assert "1 result (results/baseline/finetune.json) came without a record" in said
    assert "can't be known" in said


def test_a_job_that_fails_leaves_no_record_of_what_was_there_before(copied):
    copied.configure(merged(SMALL, {"compare": {"confidence": 0.9}}))
    record = copied.path / "results/.made/compare.csv.json"
    assert record.exists()
    script = copied.path / "scripts/compare_answers.py"
    script.write_text(
        script.read_text(encoding="utf-8").replace("run(snakemake, main)", "run(snakemake, None)")
    )
    copied.snakemake(COMPARE, fails=True)
    assert not record.exists()
