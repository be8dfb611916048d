"""A finished run whose held-out questions are asked again with other pictures, and then no longer."""

import csv
import io

import pytest
from mindtune.data.prompts import pictures_of
from mindtune.files import read_json_lines
from PIL import Image
from workflow.conftest import SMALL, merged

COMPARE, SUMMARY = "results/compare.csv", "results/summary.csv"
ASKED = 7  # held-out questions
ANSWERS = ("shared/answers_before", "baseline/answers_after", "hot/answers_after")


def rows(checkout, name=COMPARE):
    return list(csv.DictReader(io.StringIO(checkout.read(name).decode())))


@pytest.fixture(scope="module")
def asked(finished, tmp_path_factory):
    """A copy of the finished run with both controls; with its tables and answers of before."""
    checkout = finished.without(tmp_path_factory.mktemp("controls") / "run")
    before = {
        name: checkout.read(name)
        for name in (COMPARE, SUMMARY, *(f"results/{place}.jsonl" for place in ANSWERS))
    }
    checkout.configure(merged(SMALL, {"compare": {"controls": ["blind", "shuffled"]}}))
    # Nothing but the controls: of the base once, and of each experiment.
    assert checkout.planned() == {
        "blind_prompts": 1, "shuffle_prompts": 1, "answer_prompts": 6, "compare_answers": 1
    }  # fmt: skip
    said = checkout.snakemake(COMPARE)
    for control in ("blind", "shuffled"):
        assert f"{control} asks {ASKED} prompts more" in said
    return checkout, before


def test_the_questions_are_the_same_and_the_pictures_are_not(asked):
    checkout, before = asked
    shared = checkout.path / "results/shared"
    own = [
        line for line in read_json_lines(shared / "prompts.jsonl") if line["split"] == "held_out"
    ]
    assert len(own) == ASKED
    for control in ("blind", "shuffled"):
        changed = read_json_lines(shared / f"prompts_{control}.jsonl")
        assert [line | {"image": ""} for line in changed] == [line | {"image": ""} for line in own]
        assert all(one["image"] != other["image"] for one, other in zip(own, changed, strict=True))
        for place in ANSWERS:
            lines = read_json_lines(checkout.path / f"results/{place}_{control}.jsonl")
            keys = ("id", "image", "prompt")
            assert [{key: line[key] for key in keys} for line in lines] == [
                {key: line[key] for key in keys} for line in changed
            ]
    images = checkout.path / "results/sources/COCO2017/train2017"
    for one, line in zip(own, read_json_lines(shared / "prompts_blind.jsonl"), strict=True):
        with (
            Image.open(images / one["image"]) as seen,
            Image.open(shared / "grey" / line["image"]) as grey,
        ):
            assert grey.size == seen.size and len(grey.convert("RGB").getcolors()) == 1
    pictures = {name for line in own for name in pictures_of(line)}
    assert {name for line in read_json_lines(shared / "prompts_shuffled.jsonl")
            for name in pictures_of(line)} == pictures  # fmt: skip
    for place in ANSWERS:
        assert checkout.read(f"results/{place}.jsonl") == before[f"results/{place}.jsonl"]


def test_compare_csv_has_what_was_said(asked):
    checkout, before = asked
    table = rows(checkout)
    plain = list(csv.DictReader(io.StringIO(before[COMPARE].decode())))
    assert [{key: row[key] for key in plain[0]} for row in table] == plain
    for row in table:
        added = {key: value for key, value in row.items() if key not in plain[0]}
        if row["split"] == "named":
            assert set(added.values()) == {""}
            continue
        assert added["shuffled_image"] not in ("", row["image"])
        assert {added[f"exact_{control}_{stage}"] for control in ("blind", "shuffled")
                for stage in ("before", "after")} <= {"true", "false"}  # fmt: skip
    summary = [row for row in rows(checkout, SUMMARY) if row["split"] == "held_out"]
    for row in summary:
        seen = float(row["exact_blind_seen"])
        low, high = (float(row[f"exact_blind_seen_{end}"]) for end in ("low", "high"))
        assert low <= seen <= high


def test_the_report_has_them_and_all_goes_back_without_them(asked):
    checkout, before = asked
    checkout.snakemake("results/report.html")
    page = (checkout.path / "results/report.html").read_text(encoding="utf-8")
    assert "What is seen, and what is guessed" in page and "with a grey one" in page
    checkout.configure(SMALL)
    assert checkout.planned() == {"compare_answers": 1}
    checkout.snakemake(COMPARE)
    for name, content in before.items():
        assert checkout.read(name) == content, name
