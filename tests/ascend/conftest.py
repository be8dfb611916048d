"""A tiny model with data, and a framework that is only played (tests/ascend/fake_python.py)."""

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from ascend.values import HERE, LAUNCH, OPERATION, PARALLEL, RECORDED, TEMPLATES, TRAIN, scrambled
from mindtune.demo.base_model import write_base_model
from mindtune.demo.drawing import draw_scene
from mindtune.demo.scenes import conversation, scenes
from mindtune.engines import stage, training_check
from mindtune.engines.converting import converter
from mindtune.engines.mindspeed.machine import Machine
from mindtune.engines.requests import AnswerJob, FinetuneJob, PrepareJob
from mindtune.files import read_json_lines


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A base model, its mm checkpoint, four pictures, data, and prompts."""
    place = tmp_path_factory.mktemp("mindspeed base")
    write_base_model(place / "base")
    (place / "images").mkdir()
    records, prompts = [], []
    for number, (image_id, scene) in enumerate(scenes(4, 5)):
        rng = random.Random(image_id)
        draw_scene(scene, rng)[0].save(place / "images" / f"{image_id}.jpg")
        (question, answer), *_ = conversation(scene, rng)
        messages = [
            {"role": "user", "content": f"<image>\n{question}"},
            {"role": "assistant", "content": answer},
        ]
        records.append({"images": [f"{image_id}.jpg"], "messages": messages})
        prompts.append({"id": str(number), "image": f"{image_id}.jpg", "prompt": question})
    (place / "train.json").write_text(json.dumps(records))
    (place / "held_out.json").write_text("[]")
    (place / "prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
    job = PrepareJob.of("mindspeed", place / "base", place / "mm", parallel=PARALLEL)
    converter("mindtune").prepare(job)
    return place


@dataclass
class Played:
    """A place to run in, with a framework that is played."""

    base: Path
    here: Path

    @property
    def save_dir(self) -> Path:
        return self.here / "save_dir"

    def play(self, **what) -> None:
        """Say what goes wrong from now on."""
        (self.here / "play.json").write_text(json.dumps(what))

    def starts(self) -> list[dict]:
        """How the framework was started so far."""
        return [json.loads(line) for line in (self.here / "starts.jsonl").read_text().splitlines()]

    def finetune(self, launch=None, parallel=None, mm=None, keep="all", followers=None, **train):
        """Check and fine-tune, as scripts/finetune_model.py does; returns loss.csv's lines."""
        job = replace(self.job(launch, parallel, mm, **train), keep=keep, followers=followers)
        training_check("mindspeed")(job, 0)
        self.save_dir.mkdir(exist_ok=True)
        stage("mindspeed", "finetune")(job)
        return (self.save_dir / "loss.csv").read_text().splitlines()

    def job(self, launch=None, parallel=None, mm=None, **train) -> FinetuneJob:
        return FinetuneJob.of(
            "mindspeed",
            train_data=self.base / "train.json", held_out_data=self.base / "held_out.json",
            images=self.base / "images", hf_dir=self.base / "base", mm_dir=mm or self.base / "mm",
            save_dir=self.save_dir, train=TRAIN | train, processor={"image_resolution": 262144},
            parallel=PARALLEL | (parallel or {}), machine=LAUNCH | (launch or {}),
            framework=self.here / "machine.json", operation=OPERATION | {"cache": str(self.here / "cache")},
        )  # fmt: skip

    def answer(self, model=None, inference="pipeline", **parallel) -> list[dict]:
        job = AnswerJob.of(
            "mindspeed",
            prompts=self.base / "prompts.jsonl", images=self.base / "images",
            model_dir=model or self.base / "mm", hf_dir=self.base / "base",
            answers=self.here / "answers_before.jsonl", answer={"max_new_tokens": 24},
            processor={"image_resolution": 262144}, parallel=PARALLEL | parallel,
            machine={"inference": inference, "environment": {}},
            framework=self.here / "machine.json", operation=OPERATION | {"cache": str(self.here / "cache")},
        )  # fmt: skip
        stage("mindspeed", "answer")(job)
        return read_json_lines(job.answers)


@pytest.fixture
def played(base, tmp_path, monkeypatch):
    here = tmp_path / "a place $(touch hacked); 'quoted'"
    home = here / "MindSpeed-MM"
    (home / "examples/qwen2vl").mkdir(parents=True)
    for name, file in TEMPLATES.items():
        (home / f"examples/qwen2vl/{file}.json").write_text(
            json.dumps(scrambled(json.loads((RECORDED / f"{name}.json").read_text())))
        )
    (home / "set_env.sh").write_text(
        "export MADE_BY=set_env.sh PYTHONPATH=/cann/python\necho $UNSET\n"
    )
    Machine(
        home=home, python=HERE / "fake_python.py", set_env=home / "set_env.sh", stand_in=None,
    ).write(here / "machine.json")  # fmt: skip
    monkeypatch.setenv("FAKE_FRAMEWORK", str(here))
    monkeypatch.setenv("PYTHONPATH", "of/our/own")
    monkeypatch.setenv("VIRTUAL_ENV", "of/our/own")
    return Played(base, here)
