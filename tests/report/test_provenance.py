"""provenance.json, and what verify_run says of two runs."""

import json
import shutil
from zipfile import ZipFile

import numpy as np
import pytest
import verify_run
from finished import build, finished
from mindtune.provenance import machine
from mindtune.provenance.record import (
    framework_packages,
    frameworks,
    listing,
    said,
    seeds,
    wall_times,
    weights,
)
from safetensors.numpy import save_file


@pytest.fixture
def two(tmp_path):
    """Two equal runs."""
    first = finished(tmp_path / "first", 6)
    build(first)
    shutil.copytree(first, tmp_path / "second")
    return tmp_path / "first/results", tmp_path / "second/results"


def change(place, **parts):
    path = place / "baseline/provenance.json"
    found = json.loads(path.read_text())
    for dotted, value in parts.items():
        *keys, last = dotted.split("__")
        inner = found
        for key in keys:
            inner = inner[key]
        inner[last] = value
    path.write_text(json.dumps(found))


def verified(two, capsys):
    status = verify_run.main([str(place) for place in two])
    return status, capsys.readouterr().out.splitlines()


def test_equal_runs_are_the_same(two, capsys):
    assert verified(two, capsys) == (0, ["baseline: the same answers and the same weights."])


def test_other_settings_and_packages_are_named(two, capsys):
    change(two[1], config__train__lr=0.5, packages__torch="2.0", results__answers_after="x")
    change(two[1], weights__tuned__sha256="other")
    status, lines = verified(two, capsys)
    assert status == 1
    assert lines[0] == "baseline: the results differ, and so do settings and software."
    assert "  results: the fine-tuned weights differ." in lines
    assert "  settings: train.lr is 0.001 here and 0.5 there." in lines
    assert "  software: torch is 2.13.0 here and 2.0 there." in lines


def test_the_same_results_though_the_machine_is_another(two, capsys):
    change(two[1], hardware__cores=64, seconds__finetune_model=7.0)
    status, lines = verified(two, capsys)
    assert status == 0 and lines[0] == "baseline: the same answers and the same weights."
    assert "  circumstances: cores is 2 here and 64 there." in lines
    assert "  circumstances: finetune_model took 74 s here and 7 s there." in lines


def test_answers_to_controls_are_compared_too(two, capsys):
    for place in two:
        change(place, results__answers_after_blind="x")
    assert verified(two, capsys)[0] == 0
    change(two[1], results__answers_after_blind="y", results__answers_before_shuffled="z")
    status, lines = verified(two, capsys)
    assert status == 1
    assert "  results: the answers after fine-tuning to blind questions differ." in lines
    told = "  circumstances: only there are answers before fine-tuning to shuffled questions."
    assert told in lines


def test_other_results_without_a_reason_say_where_to_look(two, capsys):
    change(two[1], weights__tuned__sha256="other")
    _, lines = verified(two, capsys)
    assert "look at the machines and at uncommitted changes" in lines[0]


def test_answers_that_differ_are_quoted(two, capsys):
    table = two[1] / "compare.csv"
    text = table.read_text(encoding="utf-8")
    old = "On the back of the bus, there is a large advertisement for a drink."
    first = text.index(old, text.index(old) + 1)
    table.write_text(text[:first] + "A bottle." + text[first + len(old) :], encoding="utf-8")
    status, lines = verified(two, capsys)
    assert status == 1
    assert "1 of 25 answers after differ" in lines[1] and "“A bottle.” there" in lines[1]


def test_a_directory_without_runs_is_told(tmp_path, capsys):
    assert verify_run.main([str(tmp_path), str(tmp_path)]) == 2
    assert "has no experiment with a provenance.json" in capsys.readouterr().err


def test_weights_are_counted_and_hashed(tmp_path):
    arrays = {"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float32)}
    save_file(arrays, tmp_path / "model.safetensors")
    found = weights(tmp_path)
    assert found["parameters"] == 17 and list(found["files"]) == ["model.safetensors"]
    save_file(arrays | {"b": np.ones(5, np.float32)}, tmp_path / "model.safetensors")
    assert weights(tmp_path)["sha256"] != found["sha256"]


def test_a_picture_more_or_larger_is_another_directory(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"1")
    found = listing(tmp_path)
    assert (found["files"], found["bytes"]) == (1, 1)
    (tmp_path / ".hidden").write_bytes(b"1")
    assert listing(tmp_path) == found
    with ZipFile(tmp_path / ".pictures.zip", "w") as archive:
        archive.write(tmp_path / "a.jpg", "a.jpg")
    assert listing(tmp_path / ".pictures.zip") == found
    (tmp_path / "a.jpg").write_bytes(b"12")
    assert listing(tmp_path)["sha256_of_names_and_sizes"] != found["sha256_of_names_and_sizes"]


def test_what_was_said_has_no_time(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"id": "1", "answer": "a", "seconds": 1.0}\n')
    first = said(path)
    path.write_text('{"id": "1", "answer": "a", "seconds": 2.0}\n')
    assert said(path) == first
    path.write_text('{"id": "1", "answer": "b", "seconds": 2.0}\n')
    assert said(path) != first


def test_wall_times_of_an_experiments_own_scopes(tmp_path):
    for name in ("answer/shared_before", "answer/hot_after", "answer/other_after", "train/hot"):
        path = tmp_path / f"{name}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("s\th:m:s\n1.25\t0:00:01\n")
    assert wall_times(tmp_path, ["shared", "hot"]) == {
        "answer, after": 1.2, "answer, before": 1.2, "train": 1.2,
    }  # fmt: skip


def test_seeds_and_frameworks():
    assert seeds({"train": {"seed": 3, "lr": 1}, "engine": "hf"}) == {"train.seed": 3}
    machine = {"commits": {"MindSpeed": "6f11a6c9"}, "versions": {"torch": "2.1.0"}}
    assert frameworks(machine) == {"MindSpeed": {"commit": "6f11a6c9", "dirty": None}}
    assert framework_packages(machine) == {"torch of the framework": "2.1.0"}
    assert frameworks(None) == framework_packages(None) == {}


def test_a_machine_without_git_or_cards_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.commit(tmp_path) is None
    assert machine.hardware()["accelerators"] == []
    assert machine.hardware()["cores"] >= 1 and machine.packages()["numpy"] == np.__version__
