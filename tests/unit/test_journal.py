"""Answers that an interrupted answering gave are kept, and only those of the very same job."""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from itertools import chain

import pytest
from mindtune.demo.drawing import draw_scene
from mindtune.demo.scenes import scenes
from mindtune.engines import journal as journals
from mindtune.engines.cleaning import journals_below, remove_for_good
from mindtune.engines.hf import answer as answering
from mindtune.engines.journal import Journal, in_order, key_of
from mindtune.engines.requests import AnswerJob
from mindtune.files import read_json_lines
from mindtune.settings.typed import typed

COUNT = 10


@pytest.fixture
def job(base, tmp_path):
    """Ten prompts about two pictures, in a directory as of an experiment."""
    place = tmp_path / "results/baseline"
    place.mkdir(parents=True)
    for number, (_, scene) in enumerate(scenes(2, 3)):
        draw_scene(scene, random.Random(number))[0].save(place / f"{number}.jpg")
    prompts = [
        {"id": str(n), "image": f"{n % 2}.jpg", "prompt": "What is it?" + " And why?" * (n % 3)}
        for n in range(COUNT)
    ]
    (place / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in prompts))
    return AnswerJob.of(
        "hf",
        prompts=place / "prompts.jsonl", images=place, model_dir=base, hf_dir=base,
        answers=place / "answers_after.jsonl", answer={"max_new_tokens": 6, "batch_size": 3},
        processor={"image_resolution": 512 * 512}, parallel={},
        machine={"device": "cpu", "precision": "fp32", "threads": 1}, code="0123",
    )  # fmt: skip


def prompts_of(job):
    return read_json_lines(job.prompts)


def without_seconds(job):
    return [
        {key: value for key, value in line.items() if key != "seconds"}
        for line in read_json_lines(job.answers)
    ]


def left_by(job):
    return list(journals_below(job.answers.parents[1]))


def test_what_was_added_is_there_for_the_same_job_only(job):
    first = Journal.of(job, prompts_of(job), engine="hf")
    batches = in_order(COUNT, 4)
    assert [list(batch) for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    first.add(batches[1], [{"answer": f"to {n} \u2028"} for n in batches[1]])
    again = Journal.of(job, prompts_of(job), engine="hf")
    assert again.lines == {n: {"answer": f"to {n} \u2028"} for n in batches[1]}
    assert again.missing(batches) == [batches[0], batches[2]] and not again.is_whole
    for other in (
        replace(job, code="4567"), replace(job, answer=typed("answer", {**job.plain()["answer"], "max_new_tokens": 7})),
        replace(job, processor=typed("processor", {"image_resolution": 64 * 64})),
    ):  # fmt: skip
        assert not Journal.of(other, prompts_of(job), engine="hf").lines
    assert not Journal.of(job, prompts_of(job), engine="vllm").lines
    (left,) = left_by(job)
    assert left.line().endswith("4 of 10 answers of an interrupted answering")
    assert left.name.startswith("baseline/answers_after.jsonl.")
    remove_for_good(left)
    assert not left_by(job)


def test_the_key_is_the_content_of_model_prompts_and_pictures(job, base, tmp_path):
    prompts = prompts_of(job)
    key = key_of(job, prompts, {})
    for path in (*base.iterdir(), *job.images.iterdir()):
        os.utime(path, (0, 0))
    assert key_of(job, prompts, {}) == key
    found = {key}

    def changes():
        found.add(key_of(job, prompts, {}))
        return len(found)

    picture = job.images / "1.jpg"
    picture.write_bytes(picture.read_bytes() + b"\0")
    assert changes() == 2
    job.prompts.write_text(job.prompts.read_text() + "\n")
    assert changes() == 3
    model = tmp_path / "model"
    model.mkdir()
    for path in base.iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    job = replace(job, model_dir=model)
    assert changes() == 3  # the same content elsewhere
    weights = next(model.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert changes() == 4
    archive = tmp_path / "pictures.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.write(picture, "1.jpg")
    job = replace(job, images=archive)
    assert changes() == 5
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("1.jpg", b"another")
    assert changes() == 6


@pytest.mark.parametrize(
    "torn", [b'[[3, {"an', b"\0\0\0\n", b'[[3, 7]]\n[[4, {"a": 1}]]\n', b"{}\n"]
)
def test_a_torn_end_is_cut_off_and_written_over(job, torn):
    journal = Journal.of(job, prompts_of(job))
    journal.add([0, 1], [{"answer": "a"}, {"answer": "b"}])
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + torn)
    again = Journal.of(job, prompts_of(job))
    assert sorted(again.lines) == [0, 1] and journal.path.read_bytes() == whole
    again.add([2], [{"answer": "c"}])
    assert sorted(Journal.of(job, prompts_of(job)).lines) == [0, 1, 2]
    journal.path.write_bytes(b'{"promp')
    assert not Journal.of(job, prompts_of(job)).lines and not journal.path.exists()


@pytest.mark.parametrize("budget", [None, 150])
def test_only_what_is_missing_is_asked_at_the_original_boundaries(job, budget, monkeypatch):
    job = replace(
        job, answer=typed("answer", {**job.plain()["answer"], "tokens_per_batch": budget})
    )
    answering.answer(job)
    undisturbed = without_seconds(job)
    assert len({line["answer"] for line in undisturbed}) > 1 and not left_by(job)
    parts, asked = [], []
    add = Journal.add

    def noted(journal, numbers, lines):
        if stop and len(parts) == 2:
            raise KeyboardInterrupt
        add(journal, numbers, lines)
        parts.append(list(numbers))

    monkeypatch.setattr(Journal, "add", noted)
    stop, job = True, replace(job, answers=job.answers.with_name("answers_before.jsonl"))
    with pytest.raises(KeyboardInterrupt):
        answering.answer(job)
    assert not job.answers.exists() and left_by(job)[0].answers == sum(map(len, parts))
    stop, asked, parts[:] = False, [*parts], []
    answering.answer(job)
    assert sorted(chain(*asked, *parts)) == list(range(COUNT)) and len(asked) == 2 and parts
    assert without_seconds(job) == undisturbed and not left_by(job)


def test_a_whole_journal_needs_no_model(job, monkeypatch):
    journal = Journal.of(
        job, prompts_of(job), engine="hf", versions=journals.versions("torch", "transformers")
    )
    lines = [{"id": str(n), "answer": "yes"} for n in range(COUNT)]
    journal.add(range(COUNT), lines)
    monkeypatch.setattr(answering, "load_model", None)
    answering.answer(job)
    assert read_json_lines(job.answers) == lines


KILLED = """
import os, pickle, signal, sys
from mindtune.engines.hf import answer as answering
from mindtune.engines.journal import Journal

job, after = pickle.loads(bytes.fromhex(sys.argv[1])), int(sys.argv[2])
add = Journal.add

def killed(journal, numbers, lines):
    add(journal, numbers, lines)
    if len(journal.lines) >= after:
        os.kill(os.getpid(), signal.SIGKILL)

Journal.add = killed
answering.answer(job)
"""


def test_a_killed_process_has_its_answers_on_the_disk(job):
    answering.answer(job)
    undisturbed = without_seconds(job)
    job = replace(job, answers=job.answers.with_name("answers_before.jsonl"))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, pickle.dumps(job).hex(), "4"], check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL and not job.answers.exists()
    assert left_by(job)[0].answers == 6
    answering.answer(job)
    assert without_seconds(job) == undisturbed


def test_five_thousand_answers_are_no_work(tmp_path):
    journal = Journal(tmp_path / "journal", 5000)
    for number in range(5000):
        journal.lines[number] = {"id": str(number), "answer": "x" * 200}
    lines, journal.lines = journal.lines, {}
    for batch in in_order(5000, 50):
        journal.add(batch, [lines[number] for number in batch])
    again = Journal(tmp_path / "journal", 5000)
    again._take_up()
    assert again.lines == lines and again.is_whole
    again.finish(tmp_path / "answers.jsonl")
    assert read_json_lines(tmp_path / "answers.jsonl") == list(lines.values())
    assert not journal.path.exists()
