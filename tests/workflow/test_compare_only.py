"""Models that were trained elsewhere: the same tables and page, and nothing is trained for them."""

import html
import json
import shutil

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from workflow.conftest import SMALL, Checkout

NEITHER = {"as good", "can't tell"}
PROCESSOR = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json")
MODULE = "model.layers.{n}.mlp.down_proj"


def lines(checkout, name):
    return [json.loads(line) for line in checkout.read(name).decode().splitlines()]


def said(checkout, experiment):
    return [line["answer"] for line in lines(checkout, f"results/{experiment}/answers_after.jsonl")]


def one_file(directory, tensors):
    """The model of a directory, with these weights in one file."""
    for path in directory.glob("*.safetensors*"):
        path.unlink()
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def models(finished, tmp_path_factory):
    """Models as trainings elsewhere leave them: name -> directory.

    exported: baseline's own export. bare: the same without tokenizer and processor. lora: an adapter.
    merged: the model that it makes. same: the base.
    """
    place = tmp_path_factory.mktemp("models")
    base = finished.path / "results/sources/Qwen2-VL-demo"
    for name in ("exported", "bare"):
        shutil.copytree(finished.path / "results/baseline/hf", place / name)
    for name in PROCESSOR:
        (place / "bare" / name).unlink()
    for name in ("merged", "same"):
        shutil.copytree(base, place / name)
    tensors = {}
    for path in sorted(base.glob("*.safetensors")):
        tensors |= load_file(path)
    generator = torch.Generator().manual_seed(5)
    adapter = {}
    for n in range(4):
        name = f"{MODULE.format(n=n)}.weight"
        rows, columns = tensors[name].shape
        a = torch.randn(4, columns, generator=generator) * 0.5
        b = torch.randn(rows, 4, generator=generator) * 0.5
        peft = f"base_model.model.{MODULE.format(n=n)}"
        adapter |= {f"{peft}.lora_A.weight": a, f"{peft}.lora_B.weight": b}
        tensors[name] = (tensors[name].float() + 16 / 4 * b @ a).to(tensors[name].dtype)
    one_file(place / "merged", tensors)
    (place / "lora").mkdir()
    save_file(adapter, place / "lora/adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 16, "base_model_name_or_path": "elsewhere"}
    (place / "lora/adapter_config.json").write_text(json.dumps(config))
    return {path.name: path for path in place.iterdir()}


@pytest.fixture(scope="module")
def compared(finished, models, tmp_path_factory):
    """The finished run with all of these beside its two experiments, and what that ran."""
    checkout = finished.without(tmp_path_factory.mktemp("compared") / "run")
    others = {name: {"tuned_model": str(path)} for name, path in sorted(models.items())}
    checkout.configure(SMALL | {"experiments": SMALL["experiments"] | others})
    planned = checkout.planned()
    checkout.snakemake("results/compare.csv", "results/report.html")
    return checkout, planned


def test_nothing_is_trained_exported_or_prepared_for_them(compared):
    _, planned = compared
    assert planned == {"answer_prompts": 5, "merge_adapter": 1, "compare_answers": 1}


def test_an_exported_model_answers_as_it_does_where_it_was_trained(compared):
    checkout, _ = compared
    answers = said(checkout, "baseline")
    assert said(checkout, "exported") == answers
    assert said(checkout, "bare") == answers  # with the base's tokenizer and processor


def test_an_adapter_answers_as_the_model_that_it_makes(compared):
    checkout, _ = compared
    assert said(checkout, "lora") == said(checkout, "merged")
    before = [line["answer"] for line in lines(checkout, "results/shared/answers_before.jsonl")]
    assert said(checkout, "lora") != before
    assert said(checkout, "same") == before


def test_the_base_itself_is_neither_better_nor_worse(compared):
    checkout, _ = compared
    metrics = pd.read_csv(checkout.path / "results/metrics.csv", keep_default_na=False)
    judged = metrics[(metrics["experiment"] == "same") & metrics["says"].ne("")]
    assert len(judged) and set(judged["says"]) <= NEITHER
    compare = pd.read_csv(checkout.path / "results/compare.csv")
    assert not compare.loc[compare["experiment"] == "same", "changed"].any()


def test_tables_and_page_say_that_they_were_trained_elsewhere(compared, models):
    checkout, _ = compared
    compare = pd.read_csv(checkout.path / "results/compare.csv").set_index("experiment")
    elsewhere = compare.loc[list(models)]
    assert elsewhere["image_in_training"].isna().all()
    assert compare.loc["baseline", "image_in_training"].tolist() == [True] + [False] * 7
    page = html.unescape(checkout.read("results/report.html").decode())
    names = ", ".join(sorted(models))
    assert f"Trained elsewhere, and only compared here: {names}" in page
    assert f"Trained elsewhere, so without curves: {names}." in page
    assert (
        f"Best of {len(SMALL['experiments']) + len(models)} experiments" in page and "<svg" in page
    )
    provenance = json.loads(checkout.read("results/lora/provenance.json"))
    assert provenance["training"] is None and "train" not in provenance["config"]
    assert provenance["config"]["tuned_model"] == str(models["lora"])
    assert not (checkout.path / "results/lora/loss.csv").exists()


def test_only_another_training_of_a_model_runs_anything(compared, models):
    checkout, _ = compared
    assert checkout.planned() == {}
    weights = models["exported"] / "model.safetensors.index.json"
    weights.write_bytes(weights.read_bytes())
    assert checkout.planned() == {"answer_prompts": 1, "compare_answers": 1}
    adapter = models["lora"] / "adapter_model.safetensors"
    adapter.write_bytes(adapter.read_bytes())
    assert checkout.planned() == {"answer_prompts": 2, "merge_adapter": 1, "compare_answers": 1}


def test_a_configuration_of_ten_lines_compares_and_trains_nothing(finished, models, tmp_path):
    checkout = Checkout.make(tmp_path / "only")
    sources = finished.path / "results/sources"
    for name in ("COCO2017", "llava_instruct_150k.json", "Qwen2-VL-demo"):
        (checkout.path / name).symlink_to(sources / name)
    config = {
        "sources": {
            "images": {"use": "path", "path": "COCO2017/train2017"},
            "instructions": {"use": "path", "path": "llava_instruct_150k.json"},
            "model": {"use": "path", "path": "Qwen2-VL-demo"},
        },
        "data": {"held_out_fraction": 1},
        "prompts": {"named": [], "held_out_questions": 6},
        "answer": {"max_new_tokens": 8},
        "hf": {"device": "cpu", "precision": "fp32"},
        "experiments": {name: {"tuned_model": str(models[name])} for name in ("bare", "lora")},
    }
    (checkout.path / "only.yaml").write_text(yaml.safe_dump(config))
    given = ("--configfile", "only.yaml")
    assert checkout.planned(*given) == {
        "convert_data": 1, "select_prompts": 1, "answer_prompts": 3, "merge_adapter": 1,
        "compare_answers": 1,
    }  # fmt: skip
    checkout.snakemake("all", *given)
    conversion = json.loads(checkout.read("results/shared/data/conversion.json"))
    assert conversion["images"] == {"train": 0, "held_out": 60}
    page = html.unescape(checkout.read("results/report.html").decode())
    assert "Trained elsewhere, and only compared here: bare, lora" in page
    assert "6 held-out questions; what the model was trained on isn't known here" in page
    assert "train.order_seed" not in page and 'class="curves"' not in page
    assert sorted(path.name for path in (checkout.path / "results/bare").iterdir()) == [
        "answers_after.jsonl", "provenance.json", "scores.csv",
    ]  # fmt: skip


def test_a_model_of_another_family_is_told_before_the_first_job(finished, models, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(models["same"], other)
    config = json.loads((other / "config.json").read_text()) | {"model_type": "llava"}
    (other / "config.json").write_text(json.dumps(config))
    checkout = Checkout.make(
        tmp_path / "run", SMALL | {"experiments": {"mine": {"tuned_model": str(other)}}}
    )
    told = checkout.snakemake("results/compare.csv", fails=True)
    assert f"experiments.mine: tuned_model {other} can't be used: it is a llava model" in told
    assert not (checkout.path / "results").exists()


def test_a_model_with_nan_weights_is_not_answered_from(compared, models, tmp_path):
    checkout, _ = compared
    shutil.copytree(models["same"], tmp_path / "broken")
    tensors = {}
    for path in sorted((tmp_path / "broken").glob("*.safetensors")):
        tensors |= load_file(path)
    tensors["model.norm.weight"][3] = float("nan")
    one_file(tmp_path / "broken", tensors)
    checkout.configure(
        SMALL | {"experiments": {"broken": {"tuned_model": str(tmp_path / "broken")}}}
    )
    said = checkout.snakemake("results/broken/answers_after.jsonl", fails=True)
    assert (
        "model.safetensors: element 3 of model.norm.weight is not a finite number, so no answer of it "
        "means anything; save the model again, or leave it out." in said
    )
    assert "Traceback" not in said
