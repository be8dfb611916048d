"""benchmarks/full_size.py at the demo's shape: its inputs, its rows, and what it says of those it can't have."""

import json
import sys
from pathlib import Path

import pytest
from mindtune.demo.base_model import ASSETS, SPECIAL_TOKENS
from tokenizers import Tokenizer

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import full_size


@pytest.fixture
def small(monkeypatch):
    """The fewest samples that have an iteration of either kind behind the one that warms up."""
    shape = full_size.Shape({}, None, 2, 2, 0.2, 3, 3)
    monkeypatch.setitem(full_size.SHAPES, "tiny", shape)
    monkeypatch.setattr(full_size, "DEMO_BATCH", 2)
    monkeypatch.setattr(full_size, "DEMO_PICTURES", 4)


def test_every_row_is_measured_or_says_why_not(small, tmp_path, capsys):
    out = tmp_path / "rows.json"
    given = [
        "--shape",
        "tiny",
        "--device",
        "cpu",
        "--out",
        str(out),
        "--work",
        str(tmp_path / "work"),
    ]
    assert full_size.main(given) == 0
    rows = {row["what"]: row for row in json.loads(out.read_text())["rows"]}
    for what in ("iteration, plain loop, micro batches of 1", "iteration, pictures new",
                 "iteration, pictures seen before", "a checkpoint lets the training wait", "answering",
                 "demo's training on a CPU, beside transformers' Trainer"):  # fmt: skip
        assert rows[what]["value"] > 0
    assert rows["packed against one by one: loss"]["value"] < 1e-6
    assert rows["packed against one by one: gradients"]["value"] < 1e-5
    assert rows["optimizer step, fused"]["note"] == "not measured: only on CUDA is it fused"
    assert all(row["value"] is not None or "not measured" in row["note"] for row in rows.values())
    assert "| answering |" in capsys.readouterr().out


def test_a_drawn_vocabulary_has_its_size_and_our_words_as_tokens():
    own = Tokenizer.from_file(str(ASSETS / "tokenizer.json"))
    drawn = full_size.drawn(own, 2000)
    assert drawn.get_vocab_size() == 2000 + len(SPECIAL_TOKENS)
    found = drawn.encode("The kitchen surfboard<|im_end|>").tokens
    assert found == ["The", "Ġkitchen", "Ġsurfboard", "<|im_end|>"]


@pytest.mark.parametrize(
    ("given", "said"),
    [(["--rows", "fast"], "--rows: fast is none of inputs, plain"),
     (["--device", "cuda"], "torch finds no CUDA device here")],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(monkeypatch, capsys, given, said):
    monkeypatch.setattr(full_size.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        full_size.main(given)
    assert said in capsys.readouterr().err
