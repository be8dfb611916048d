"""benchmarks/full_size.py at the demo's shape: its inputs, its rows, what it says of those it can't have, and
what becomes of the others then."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from mindtune.demo.base_model import ASSETS, SPECIAL_TOKENS
from mindtune.errors import UserError
from tokenizers import Tokenizer

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import full_size
import full_size_inputs
import measuring
from measuring import Measure, Row, Table


@pytest.fixture
def small(monkeypatch):
    """The fewest samples that have an iteration of either kind behind the one that warms up."""
    untied = {"tie_word_embeddings": False}
    shape = full_size_inputs.Shape({}, untied, None, 2, 2, 0.2, 3, 3, 1, 2)
    monkeypatch.setitem(full_size.SHAPES, "tiny", shape)
    monkeypatch.setattr(full_size, "DEMO_BATCH", 2)
    monkeypatch.setattr(full_size, "DEMO_PICTURES", 4)


def test_every_row_is_measured_or_says_why_not(small, tmp_path, capsys):
    pytest.importorskip("peft", reason="pip install -r envs/lora.txt")
    out = tmp_path / "rows.json"
    given = ["--shape", "tiny", "--device", "cpu", "--minutes", "60", "--out", str(out)]
    assert full_size.main([*given, "--work", str(tmp_path / "work")]) == 0
    found = json.loads(out.read_text())
    rows = {row["what"]: row for row in found["rows"]}
    lacking = {what for what, row in rows.items() if row["value"] is None}
    assert {"optimizer", "liger"} <= lacking <= {"optimizer", "liger", "seven-nf4"}
    assert all("not measured: " in rows[what]["note"] for what in lacking)
    for what in ("iteration, plain loop, micro batches of 1", "iteration, pictures new",
                 "iteration, pictures seen before", "a checkpoint lets the training wait", "answering",
                 "iteration, LoRA of rank 16", "iteration, LoRA of rank 16 by peft, plain loop",
                 "demo's training on a CPU, beside transformers' Trainer"):  # fmt: skip
        assert rows[what]["value"] > 0
    assert rows["packed against one by one in fp32: loss"]["value"] < 1e-6
    assert rows["packed against one by one in fp32: gradients"]["value"] < 1e-5
    for what in ("iteration, LoRA of rank 16", "step, 7B, LoRA of rank 16, recomputed"):
        assert "mindtune.estimates.memory computes 0.0" in rows[what]["note"]
    said = capsys.readouterr().out
    assert "| answering |" in said and found["seconds"].keys() == {
        "making the inputs",
        *full_size.MEASURES,
    }


def twice(bench):
    bench.say(Row("first", 1.0, "s"))
    bench.say(Row("second", 2.0, "s"))


def mistaken(bench):
    bench.say(Row("before", 1.0, "s"))
    raise UserError("there is no such thing;\nwrite another.")


def too_large(bench):
    raise full_size.torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")


def faulty(bench):
    raise ZeroDivisionError("by zero")


def killed(bench):
    bench.say(Row("alive", 1.0, "s"))
    os.kill(os.getpid(), signal.SIGKILL)


def endless(bench):
    bench.say(Row("begun", 1.0, "s"))
    signal.pause()


class Bench:
    pass


def rows_of(works, forked=True, left=3600.0, seconds=100.0, scale=1.0):
    table = Table()
    measures = {work.__name__: Measure(work, seconds) for work in works}
    good = measuring.measure_all(measures, Bench(), table, time.monotonic() + left, scale, forked)
    return good, [(row.what, row.value, row.note) for row in table.rows]


@pytest.mark.parametrize("forked", [True, False])
def test_a_row_that_fails_is_a_line_and_the_next_one_is_measured(forked):
    good, rows = rows_of([mistaken, too_large, twice], forked)
    assert good
    assert rows == [
        ("before", 1.0, ""),
        ("mistaken", None, "not measured: there is no such thing; write another."),
        ("too_large", None, "not measured: CUDA out of memory. Tried to allocate 2 GiB."),
        ("first", 1.0, ""), ("second", 2.0, ""),
    ]  # fmt: skip
    good, rows = rows_of([faulty, twice], forked)
    assert not good and rows[0] == ("faulty", None, "not measured: ZeroDivisionError: by zero")
    assert len(rows) == 3


def test_a_process_that_is_killed_or_too_slow_leaves_its_rows():
    good, rows = rows_of([killed, twice])
    assert not good and rows[:2] == [
        ("alive", 1.0, ""), ("killed", None, "not measured: its process ended by itself (SIGKILL)")
    ]  # fmt: skip
    assert len(rows) == 4
    good, rows = rows_of([endless], seconds=100.0, scale=0.02)
    assert good and rows[-1] == ("endless", None, "not measured: it was ended after 4 s, its time")


def test_what_may_not_be_done_in_time_is_left_out_and_named(tmp_path):
    good, rows = rows_of([twice], left=60.0)
    assert good and rows[0][:2] == ("twice", None)
    assert rows[0][2].startswith("left out for time: it may take 100 s, and ")
    assert len(rows) == 1


def test_rows_are_in_the_file_as_soon_as_they_are_found(tmp_path):
    table = Table("a card", tmp_path / "rows.json")
    table.add(Row("one", 1.0, "s"))
    assert json.loads((tmp_path / "rows.json").read_text())["rows"][0]["what"] == "one"


def test_a_drawn_vocabulary_has_its_size_and_our_words_as_tokens():
    own = Tokenizer.from_file(str(ASSETS / "tokenizer.json"))
    drawn = full_size_inputs.drawn(own, 2000)
    assert drawn.get_vocab_size() == 2000 + len(SPECIAL_TOKENS)
    found = drawn.encode("The kitchen surfboard<|im_end|>").tokens
    assert found == ["The", "Ġkitchen", "Ġsurfboard", "<|im_end|>"]


def test_what_cannot_be_measured_is_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        full_size.main(["--rows", "fast"])
    assert "--rows: fast is none of inputs, plain" in capsys.readouterr().err
    monkeypatch.setattr(full_size.torch.cuda, "is_available", lambda: False)
    assert full_size.main(["--device", "cuda"]) == 2
    assert "torch finds no CUDA device here" in capsys.readouterr().err
