"""The whole workflow, in miniature, of a tiny Qwen3-VL: from a download's directory to the comparison.

It is trained with a frozen vision encoder, whose features are kept, and by packed passes: what the other
families' small runs (test_demo.py, test_qwen25_run.py) do not do together.
"""

import csv
import json
import re

import pytest
import yaml
from mindtune.checkpoint import verify
from mindtune.models.published import PUBLISHED
from mindtune.models.shape import model_shape
from mindtune.scale import count_parameters
from tiny_qwen3 import write_base
from transformers import Qwen3VLForConditionalGeneration
from workflow.conftest import ROOT, SMALL, Checkout

ONE = SMALL | {
    "train": {"train_iters": 4, "eval_iters": 1, "eval_interval": 2, "save_interval": 2,
              "micro_batch_size": 2, "global_batch_size": 4, "lr": 1.0e-3,
              "lr_warmup_fraction": 0.0},
    "hf": {"tokens_per_pass": 600},
    "answer": {"max_new_tokens": 4, "tokens_per_batch": 400},
    "prompts": {"held_out_questions": 3}, "experiments": {"baseline": {}},
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Checkout:
    place = tmp_path_factory.mktemp("qwen3")
    base = write_base(place / "Qwen3-VL-tiny")
    sources = {
        "demo": {"pictures": 30, "text_only": 2},
        "model": {"use": "path", "path": str(base)},
    }
    checkout = Checkout.make(place / "run", ONE | {"sources": sources})
    checkout.snakemake("results/compare.csv")
    return checkout


def test_every_stage_is_made_of_the_family(run):
    results = run.path / "results"
    with open(results / "compare.csv", encoding="utf-8", newline="") as handle:
        assert len(list(csv.DictReader(handle))) > 2
    with open(results / "baseline/loss.csv", encoding="utf-8", newline="") as handle:
        losses = [row for row in csv.DictReader(handle) if row["loss"]]
    assert len(losses) == 4
    assert all(0 < float(row["loss"]) < 20 for row in losses)
    assert json.loads((results / "baseline/hf/config.json").read_text())["model_type"] == "qwen3_vl"


def test_the_exported_model_is_transformers_own(run):
    """It loads without a tensor missing or too many, and its language model alone was trained."""
    exported = run.path / "results/baseline/hf"
    model, report = Qwen3VLForConditionalGeneration.from_pretrained(
        exported, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert model.config.vision_config.deepstack_visual_indexes == [0, 1, 2]
    base = Qwen3VLForConditionalGeneration.from_pretrained(
        run.path.parent / "Qwen3-VL-tiny"
    ).state_dict()
    for name, tensor in model.state_dict().items():
        assert tensor.equal(base[name]) == name.startswith("model.visual."), name
    assert verify(run.path / "results/baseline/save_dir", exported).tensors > 90


def test_the_frameworks_engine_is_refused_before_anything_runs(run):
    results = sorted((run.path / "results").rglob("*"))
    for changed in ("engine=mindspeed", "answer={'engine': 'mindspeed'}"):
        said = run.snakemake("results/compare.csv", "--config", changed, fails=True)
        assert "MindSpeed-MM 2.0.0 doesn't know Qwen3-VL" in said
    assert sorted((run.path / "results").rglob("*")) == results


@pytest.mark.parametrize("size", ["4b", "8b"])
def test_the_shipped_configurations_plan_a_whole_run(tmp_path, size):
    """From the download to the comparison; and with the framework they are refused."""
    checkout = Checkout.make(tmp_path / "run")
    config = f"config/qwen3-vl-{size}.yaml"
    said = checkout.snakemake("--dry-run", "results/compare.csv", "--configfile", config)
    planned = dict(re.findall(r"^(\w+) +(\d+)$", said, re.MULTILINE))
    assert planned.items() >= {
        "download_model": "1", "prepare_checkpoint": "1", "finetune_model": "1",
        "export_model": "1", "answer_prompts": "2", "compare_answers": "1",
    }.items()  # fmt: skip
    assert not (checkout.path / "data").exists()
    said = checkout.snakemake(
        "--dry-run", "results/compare.csv", "--configfile", config, "--config", "engine=mindspeed",
        fails=True,
    )  # fmt: skip
    assert "engine is mindspeed, but MindSpeed-MM 2.0.0 doesn't know Qwen3-VL" in said


@pytest.mark.parametrize(("size", "shards"), [("4B", 2), ("8B", 4)])
def test_the_tables_sizes_are_those_of_the_published_tensors(size, shards):
    """Each file has a header besides."""
    table = yaml.safe_load((ROOT / "config/data_sources.yaml").read_text(encoding="utf-8"))
    files = {file["name"]: file for file in table[f"qwen3-vl-{size.lower()}-instruct"]["files"]}
    weights = [file["bytes"] for name, file in files.items() if name.endswith(".safetensors")]
    parameters = count_parameters(model_shape(PUBLISHED[f"Qwen3-VL-{size}"])).all
    assert len(weights) == shards and 0 < sum(weights) - 2 * parameters < 100_000
