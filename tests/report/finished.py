"""A finished run in small, without any model: files as the workflow writes them."""

import csv
import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

from build_report import read_run
from mindtune.comparison.contract import COMPARE, SUMMARY, checked
from mindtune.comparison.scores import all_metrics, read_scores, score_experiment
from mindtune.comparison.stages import CONTROLS
from mindtune.comparison.tables import compare_all, summarize, to_csv
from mindtune.comparison.verdicts import rule_of
from mindtune.data.prompts import family_of
from mindtune.demo.drawing import draw_scene
from mindtune.demo.scenes import TUTORIAL_IMAGE_ID, conversation, grounding_answer, scenes
from mindtune.files import read_json_lines
from mindtune.report.page import render
from mindtune.settings import load

ROOT = Path(__file__).resolve().parents[2]
COMPARISON = SimpleNamespace(
    confidence=0.95, primary_metric=None, equivalence_margin=0.05, language="en"
)
FAMILIES = {"kind": "^What type of", "color": "^What is the color of", "feature": "^What feature"}
SCRIPT = "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"


def write_lines(path: Path, lines: Sequence[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return path


def asked(pictures: int, seed: int = 3) -> list[tuple[dict, object]]:
    """The bus question, and the questions about so many other pictures."""
    found = [
        (
            {
                "id": "named.0",
                "split": "named",
                "family": "feature",
                "image": f"{TUTORIAL_IMAGE_ID:012d}.jpg",
                "image_in_training": True,
                "prompt": "What feature can be seen on the back of the bus?",
                "reference": "On the back of the bus, there is a large advertisement for a drink.",
            },
            TUTORIAL_IMAGE_ID,
        )
    ]
    for image_id, scene in scenes(pictures, seed):
        for turn, (question, answer) in enumerate(conversation(scene, random.Random(image_id))):
            prompt = {
                "id": f"{image_id:012d}.{turn}",
                "split": "held_out",
                "family": family_of(question, FAMILIES),
                "image": f"{image_id:012d}.jpg",
                "image_in_training": False,
                "prompt": question,
                "reference": answer,
            }
            found.append((prompt, image_id))
    return found


def boxed(prompt: str, rng: random.Random) -> str:
    text = grounding_answer(prompt, (rng.randrange(400), 42, 500 + rng.randrange(400), 771))
    for mark in ("object_ref_start", "object_ref_end", "box_start", "box_end"):
        text = text.replace(f"<|{mark}|>", "")
    return text


def answer(prompt: dict, text: str, rng: random.Random) -> dict:
    kept = {key: prompt[key] for key in ("id", "image", "prompt")}
    seconds = round(0.05 + rng.random() / 50, 4)
    return {**kept, "answer": text, "tokens": len(text.split()), "cut": False, "seconds": seconds}


def finished(
    root: Path,
    pictures: int = 12,
    experiments: Sequence[str] = ("baseline",),
    right: Sequence[float] = (0.94,),
    hostile: bool = False,
    draw: bool = True,
) -> Path:
    """Fill `root` as a run leaves it; `right` is each experiment's share of right answers."""
    rng = random.Random(7)
    prompts = asked(pictures)
    lines = [prompt for prompt, _ in prompts]
    if hostile:
        lines[1] |= {"prompt": f"{SCRIPT} 公交车是什么颜色？", "reference": f"红色。{SCRIPT}"}
    results = root / "results"
    write_lines(results / "shared/prompts.jsonl", lines)
    before = [answer(prompt, boxed(prompt["prompt"], rng), rng) for prompt in lines]
    if hostile:
        before[1]["answer"] = SCRIPT
    write_lines(results / "shared/answers_before.jsonl", before)
    (results / "shared/data").mkdir(parents=True, exist_ok=True)
    conversion = {
        "records": 4 * pictures, "kept": {"train": 3 * pictures, "held_out": pictures},
        "text_only": 2, "images": {"train": 3 * pictures, "held_out": pictures}, "dropped": {},
        "first_dropped": [],
    }  # fmt: skip
    (results / "shared/data/conversion.json").write_text(json.dumps(conversion))
    for name, share in zip(experiments, right, strict=True):
        after = []
        for number, prompt in enumerate(lines):
            good = number == 0 or rng.random() < share
            wrong = prompt["reference"].replace("red", "blue").replace(" a ", " the ") + " No."
            after.append(answer(prompt, prompt["reference"] if good else wrong, rng))
        write_lines(results / name / "answers_after.jsonl", after)
        loss_csv(results / name / "loss.csv", rng)
        mark = {
            "save_dir": f"results/{name}/save_dir", "iteration": 60, "fingerprint": f"0{share}",
            "loss": "0.1", "held_out_loss": "0.11",
        }  # fmt: skip
        (results / name / "finetune.json").write_text(json.dumps(mark))
    if draw:
        draw_pictures(results / "sources/COCO2017/train2017", prompts, pictures)
    return root


def draw_pictures(directory: Path, prompts, pictures: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    known = dict(scenes(pictures, 3)) | dict(scenes(20, 1, with_tutorial=True))
    for image_id in {image_id for _, image_id in prompts}:
        picture, _, _ = draw_scene(known[image_id], random.Random(image_id))
        picture.save(directory / f"{image_id:012d}.jpg", quality=90)


def provenance(experiment: str, lr: float) -> dict:
    """A provenance such as record.py writes."""
    raw = {"experiments": {experiment: {"train": {"lr": lr, "min_lr": 0.0}}}}
    config = load(raw).experiments[experiment]
    weights = {"name": "Qwen2-VL-demo", "parameters": 3_141_592, "sha256": "b" * 64, "files": {}}
    return {
        "form": 1,
        "experiment": experiment,
        "workflow": {"version": "0.1.0", "commit": "c" * 40, "dirty": False},
        "config": config,
        "seeds": {"train.seed": 42, "data.split_seed": 1},
        "packages": {"python": "3.11.2", "torch": "2.13.0", "transformers": "5.23.0"},
        "frameworks": {},
        "hardware": {
            "platform": "Linux", "processor": "A processor", "cores": 2, "memory_gib": 8,
            "accelerators": [],
        },
        "inputs": {
            "instructions": {"path": "llava.json", "bytes": 12, "sha256": "1" * 64},
            "images": {
                "path": "images", "files": 12, "bytes": 99, "sha256_of_names_and_sizes": "2" * 64
            },
        },
        "weights": {
            "base": weights, "mm_checkpoint": "3" * 64, "tuned": weights | {"sha256": experiment},
        },
        "training": {"iteration": 60},
        "results": {"prompts": "4", "answers_before": "5", "answers_after": f"6{experiment}"},
        "seconds": {"finetune_model": 73.7, "answer_prompts, before": 61.6},
    }  # fmt: skip


def ask_controls(root: Path, experiments: Sequence[str], right: Mapping[str, int]) -> None:
    """Answers of controls: after fine-tuning, the first so many of the held-out ones are right."""
    results = root / "results"
    lines = read_json_lines(results / "shared/prompts.jsonl")
    asked = [line for line in lines if line["split"] == "held_out"]
    for control, number in right.items():
        others = [line["image"] for line in asked[8:] + asked[:8]]
        for place, good in (("shared/answers_before", 0), *(
            (f"{name}/answers_after", number) for name in experiments
        )):  # fmt: skip
            said = [
                {"id": line["id"], "image": other if control == "shuffled" else "400x300.png",
                 "answer": line["reference"] if n < good else "", "tokens": 1, "cut": False,
                 "seconds": 0.1}
                for n, (line, other) in enumerate(zip(asked, others, strict=True))
            ]  # fmt: skip
            write_lines(results / f"{place}_{control}.jsonl", said)


def tables(root: Path, experiments: Sequence[str]) -> tuple[dict, dict]:
    """Write all tables of a run; the paths that `build_report.read_run` wants."""
    results = root / "results"
    answers = {
        name: {
            "prompts": results / "shared/prompts.jsonl",
            "before": results / "shared/answers_before.jsonl",
            "after": results / name / "answers_after.jsonl",
            **{
                f"{control}_{stage}": results / place / f"answers_{stage}_{control}.jsonl"
                for control in CONTROLS
                for stage, place in (("before", "shared"), ("after", name))
                if (results / place / f"answers_{stage}_{control}.jsonl").exists()
            },
        }
        for name in experiments
    }
    paths = {name: results / f"{name}.csv" for name in ("compare", "summary", "metrics")}
    compared = checked(compare_all(answers), COMPARE)
    to_csv(compared, paths["compare"])
    to_csv(checked(summarize(compared, 0.95), SUMMARY), paths["summary"])
    of_experiment = {}
    for number, name in enumerate(experiments):
        own = {kind: answers[name][kind] for kind in ("prompts", "before", "after")}
        to_csv(score_experiment(name, own), results / name / "scores.csv")
        of_experiment[name] = {
            "scores": results / name / "scores.csv",
            "loss": results / name / "loss.csv",
            "conversion": results / "shared/data/conversion.json",
            "provenance": results / name / "provenance.json",
        }
        made_of = provenance(name, 1e-3 * (1 + number))
        of_experiment[name]["provenance"].write_text(json.dumps(made_of))
    scores = read_scores(files["scores"] for files in of_experiment.values())
    rule = rule_of(COMPARISON, compared)
    to_csv(all_metrics(scores, compared, rule), paths["metrics"])
    return paths, of_experiment


def build(root: Path, experiments: Sequence[str] = ("baseline",), language: str = "en") -> Path:
    """Write a run's tables and its report.html."""
    params = SimpleNamespace(**vars(COMPARISON) | {"language": language})
    paths, of_experiment = tables(root, experiments)
    images = root / "results/sources/COCO2017/train2017"
    page = root / "results/report.html"
    page.write_text(render(read_run(paths, of_experiment, images, params)), encoding="utf-8")
    return page


def loss_csv(path: Path, rng: random.Random, iterations: int = 60) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(
            ["iteration", "consumed_samples", "lr", "loss", "grad_norm", "ms_per_iteration",
             "samples_per_second", "held_out_loss", "tokens_per_second"]
        )  # fmt: skip
        for i in range(1, iterations + 1):
            rate = 1e-3 * min(1, i / 6) * (1 + math.cos(math.pi * i / iterations)) / 2
            loss = 0.1 + 5 * math.exp(-i / 12) * rng.uniform(0.9, 1.1)
            held_out = loss * 1.05 if i % 10 == 0 else ""
            writer.writerow(
                [i, 16 * i, rate, loss, 1.5, 200 + rng.random() * 20, 78.0, held_out, 9e3]
            )
