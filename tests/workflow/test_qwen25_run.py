"""The whole workflow, in miniature, of a tiny Qwen2.5-VL: from a download's directory to the comparison.

Another family than the demo's, in what a user would write for it: `use: path`. The demo (tests/workflow/
test_demo.py) is the same run for Qwen2-VL.
"""

import csv
import json
import re

import pytest
import yaml
from mindtune.checkpoint import ParallelLayout, verify
from mindtune.checkpoint.layout import layout_options
from mindtune.models.published import PUBLISHED, published_in
from mindtune.models.shape import model_shape
from mindtune.scale import count_parameters
from mindtune.settings.typed import typed
from tiny_qwen25 import write_base
from transformers import Qwen2_5_VLForConditionalGeneration
from workflow.conftest import ROOT, SMALL, Checkout

ONE = SMALL | {
    "train": {"train_iters": 4, "eval_iters": 1, "eval_interval": 2, "save_interval": 2,
              "micro_batch_size": 2, "global_batch_size": 4, "freeze_vision_encoder": False,
              "freeze_vision_projector": False, "lr": 1.0e-3, "lr_warmup_fraction": 0.0},
    "answer": {"max_new_tokens": 4}, "prompts": {"held_out_questions": 3},
    "experiments": {"baseline": {}},
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Checkout:
    place = tmp_path_factory.mktemp("qwen25")
    base = write_base(place / "Qwen2.5-VL-tiny")
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
    assert json.loads((results / "baseline/hf/config.json").read_text())["model_type"] == (
        "qwen2_5_vl"
    )


def test_the_exported_model_is_transformers_own(run):
    """It loads without a tensor missing or too many, and all parts of it were trained."""
    exported = run.path / "results/baseline/hf"
    model, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        exported, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert model.config.vision_config.window_size == 56
    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        run.path.parent / "Qwen2.5-VL-tiny"
    ).state_dict()
    still = [name for name, tensor in model.state_dict().items() if tensor.equal(base[name])]
    assert still == []
    assert verify(run.path / "results/baseline/save_dir", exported).tensors > 90


@pytest.mark.parametrize("size", ["3b", "7b"])
def test_the_shipped_configurations_plan_a_whole_run(tmp_path, size):
    """From the download to the comparison."""
    checkout = Checkout.make(tmp_path / "run")
    config = f"config/qwen2.5-vl-{size}.yaml"
    said = checkout.snakemake("--dry-run", "results/compare.csv", "--configfile", config)
    planned = dict(re.findall(r"^(\w+) +(\d+)$", said, re.MULTILINE))
    assert planned.items() >= {
        "download_model": "1", "prepare_checkpoint": "1", "finetune_model": "1",
        "export_model": "1", "answer_prompts": "2", "compare_answers": "1",
    }.items()  # fmt: skip
    assert not (checkout.path / "data").exists()
    settings = yaml.safe_load((checkout.path / config).read_text(encoding="utf-8"))
    name = settings["sources"]["model"]["name"]
    shape = model_shape(PUBLISHED[published_in(name)])
    layout = ParallelLayout.make(shape, **layout_options(typed("parallel", settings["parallel"])))
    assert layout.training_problems() == []


def test_the_tables_sizes_are_those_of_the_published_tensors():
    """Of 7B; each file has a header besides. Nobody says those of 3B."""
    table = yaml.safe_load((ROOT / "config/data_sources.yaml").read_text(encoding="utf-8"))
    files = {file["name"]: file for file in table["qwen2.5-vl-7b-instruct"]["files"]}
    shards = [file["bytes"] for name, file in files.items() if name.endswith(".safetensors")]
    parameters = count_parameters(model_shape(PUBLISHED["Qwen2.5-VL-7B"])).all
    assert len(shards) == 5 and 0 < sum(shards) - 2 * parameters < 100_000
    assert all(file["sha256"] for file in files.values())
    unknown = table["qwen2.5-vl-3b-instruct"]["files"]
    assert [file["sha256"] for file in unknown] == [None] * 11
