"""Names that a shell, a template or a page could trip over: taken as names, or refused."""

import json
import shutil

import pytest
import yaml
from workflow.conftest import HOSTILE, HOSTILE_PATH, SMALL, Checkout, merged

NAMES = ["-rf.jpg", "a 'b' \"c\".jpg", "$(touch pwned).jpg", "`touch pwned`;&.jpg", "{d} %s.jpg",
         "中文 图片.jpg", "<b>&amp;.jpg", "~$HOME.jpg", "deep er/*.jpg"]  # fmt: skip


def pwned(path):
    return list(path.rglob("pwned*"))


def test_the_small_run_happened_in_a_place_with_a_hostile_name(complete):
    assert complete.path.name == HOSTILE
    assert pwned(complete.path.parent) == []
    assert (complete.path / "results/report.html").is_file()


@pytest.fixture
def named(finished, tmp_path):
    """A checkout whose own pictures, in a directory of a hostile name, have hostile names."""
    place = tmp_path / f"-{HOSTILE_PATH}"
    shutil.copytree(finished.path / "results/sources", place)
    instructions = place / "llava_instruct_150k.json"
    records = json.loads(instructions.read_text(encoding="utf-8"))
    pictures = place / "COCO2017/train2017"
    shown = [
        record
        for record in records
        if record.get("image", "000000033471.jpg") != "000000033471.jpg"
    ]
    for record, name in zip(shown, NAMES, strict=False):
        (pictures / name).parent.mkdir(exist_ok=True)
        (pictures / record["image"]).rename(pictures / name)
        record["image"] = name
    instructions.write_text(json.dumps(records), encoding="utf-8")
    asked = [{"image": name, "prompt": f"$(touch pwned) {name} ~ $HOME?"} for name in NAMES]
    sources = {
        "images": {"use": "path", "path": str(pictures)},
        "instructions": {"use": "path", "path": str(instructions)},
        "model": {"use": "path", "path": str(place / "Qwen2-VL-demo")},
        "mixture": [{"path": str(instructions)}],
    }
    small = {"sources": sources, "prompts": {"named": asked, "held_out_questions": 2}}
    return Checkout.make(tmp_path / "checkout", merged(SMALL, small))


def test_pictures_and_questions_with_hostile_names_are_answered(named):
    named.snakemake("results/shared/answers_before.jsonl", "results/shared/mm")
    text = named.read("results/shared/answers_before.jsonl").decode()
    answers = [json.loads(line) for line in text.splitlines()]
    assert [answer["image"] for answer in answers[: len(NAMES)]] == NAMES
    assert answers[0]["prompt"] == "$(touch pwned) -rf.jpg ~ $HOME?"
    assert pwned(named.path.parent) == []


def test_a_line_break_in_the_working_directory_is_refused(tmp_path):
    checkout = Checkout.make(tmp_path / "two\nlines")
    said = checkout.snakemake("results/compare.csv", fails=True)
    assert "has a line break or the like in its name; rename it." in said
    assert "Traceback" not in said and not (checkout.path / "results").exists()


def test_a_configuration_file_with_a_hostile_name_is_read(finished):
    file = finished.path / f"{HOSTILE}.yaml"
    config = yaml.safe_load((finished.path / "config/config.yaml").read_text(encoding="utf-8"))
    text = yaml.safe_dump(merged(config, {"train": {"lrr": 1}}))
    line = text.split("\n").index("  lrr: 1") + 1
    file.write_text(text, encoding="utf-8")
    try:
        said = finished.snakemake(
            "-n", "results/compare.csv", "--configfile", file.name, fails=True
        )
    finally:
        file.unlink()
    assert (
        f"The configuration ({file.name}) can't be used:\n"
        f"  - {file.name}, line {line}: train.lrr is not a key"
    ) in said
