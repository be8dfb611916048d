"""scripts/explain.py in a finished run: what it says, and that it changes nothing."""

import os
import re

import pytest
from workflow.conftest import SMALL, merged


def explain(checkout, *arguments, status=0):
    return checkout.tool("explain", *arguments, status=status)


@pytest.fixture
def changed(complete):
    yield lambda change: complete.configure(merged(SMALL, change))
    complete.configure(SMALL)


def state(checkout):
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_size)
        for path in checkout.path.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != "mindtune.lock"
    }


def test_two_edits_are_told_apart_with_their_jobs_and_times(complete, changed):
    changed({"train": {"lr": 2e-3}, "answer": {"max_new_tokens": 9}})
    before = state(complete)
    said = explain(complete)
    assert state(complete) == before
    times = re.sub(r"about \d+ s", "about N s", said)
    assert times == (
        "train.lr: 0.001 -> 0.002\n"
        "  runs finetune_model   baseline         about N s\n"
        "       export_model     baseline         about N s\n"
        "       answer_prompts   after, baseline  about N s\n"
        "       compare_answers                   not measured\n"
        "\n"
        "answer.max_new_tokens: 8 -> 9\n"
        "  runs answer_prompts   before                about N s\n"
        "       answer_prompts   after, baseline, hot  about N s\n"
        "       compare_answers                        not measured\n"
        "\n"
        "6 jobs, about N s one after another, by what they took before; not measured: "
        "compare_answers.\n"
    )


def test_it_says_when_nothing_would_run(complete):
    assert explain(complete, "all") == "Nothing would run: all is up to date.\n"


def test_mistakes_are_those_of_snakemake(complete):
    assert "No rule to produce nonsense" in explain(complete, "nonsense", status=1)
    said = explain(complete, "--config", 'train={"lrr": 1}', status=1)
    assert "train.lrr is not a key; did you mean `lr`?" in said


def texts(checkout, target="results/compare.csv"):
    return [cause.text for cause in checkout.asked(target)[1]]


def test_an_output_that_is_not_there(complete):
    table = complete.path / "results/metrics.csv"
    aside = table.rename(table.with_suffix(".aside"))
    try:
        assert texts(complete, "results/metrics.csv") == ["not there: results/metrics.csv"]
    finally:
        aside.rename(table)


def test_an_input_that_changed(complete):
    data = complete.path / "results/shared/data/train.json"
    before, times = data.read_bytes(), data.stat()
    try:
        data.write_bytes(before + b"\n")
        said = texts(complete)
    finally:
        data.write_bytes(before)
        os.utime(data, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert said == ["results/shared/data/train.json changed after it was used"]
