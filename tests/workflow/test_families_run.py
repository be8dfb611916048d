"""The whole workflow, in miniature, of tiny models of other families than the demo's (test_demo.py).

From a download's directory to the comparison, in what a user would write for it: `use: path`. Qwen2.5-VL
is trained in all its parts; Qwen3-VL with a frozen vision encoder, whose features are kept, and by packed
passes.
"""

import csv
import json
import re
from types import SimpleNamespace

import pytest
import tiny_qwen3
import tiny_qwen25
import yaml
from mindtune.checkpoint import ParallelLayout, verify
from mindtune.checkpoint.layout import layout_options
from mindtune.models.published import PUBLISHED, published_in
from mindtune.models.shape import model_shape
from mindtune.scale import count_parameters
from mindtune.settings.typed import typed
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration
from workflow.conftest import ROOT, SMALL, Checkout, merged

ONE = {
    "train": {"train_iters": 4, "eval_iters": 1, "eval_interval": 2, "save_interval": 2,
              "micro_batch_size": 2, "global_batch_size": 4, "lr": 1.0e-3, "lr_warmup_fraction": 0.0},
    "answer": {"max_new_tokens": 4}, "prompts": {"held_out_questions": 3},
    "sources": {"demo": {"pictures": 30, "text_only": 2}}, "experiments": {"hot": None},
}  # fmt: skip
FAMILIES = {
    "qwen2_5_vl": (
        tiny_qwen25, Qwen2_5_VLForConditionalGeneration,
        {"train": {"freeze_vision_encoder": False, "freeze_vision_projector": False}},
    ),
    "qwen3_vl": (
        tiny_qwen3, Qwen3VLForConditionalGeneration,
        {"hf": {"tokens_per_pass": 600}, "answer": {"tokens_per_batch": 400}},
    ),
}  # fmt: skip
SHIPPED = ("qwen2.5-vl-3b", "qwen2.5-vl-7b", "qwen3-vl-4b", "qwen3-vl-8b")


@pytest.fixture(scope="module", params=FAMILIES)
def run(request, tmp_path_factory) -> SimpleNamespace:
    """A finished run of a family: its checkout, base model, class, and model_type."""
    tiny, model, own = FAMILIES[request.param]
    place = tmp_path_factory.mktemp(request.param)
    base = tiny.write_base(place / "tiny")
    source = {"sources": {"model": {"use": "path", "path": str(base)}}}
    checkout = Checkout.make(place / "run", merged(merged(merged(SMALL, ONE), own), source))
    checkout.snakemake("results/compare.csv")
    return SimpleNamespace(checkout=checkout, base=base, model=model, type=request.param)


def test_every_stage_is_made_of_the_family(run):
    results = run.checkout.path / "results"
    with open(results / "compare.csv", encoding="utf-8", newline="") as handle:
        assert len(list(csv.DictReader(handle))) > 2
    with open(results / "baseline/loss.csv", encoding="utf-8", newline="") as handle:
        losses = [row for row in csv.DictReader(handle) if row["loss"]]
    assert len(losses) == 4
    assert all(0 < float(row["loss"]) < 20 for row in losses)
    assert json.loads((results / "baseline/hf/config.json").read_text())["model_type"] == run.type


def test_the_exported_model_is_transformers_own(run):
    """It loads without a tensor missing or too many, and just what was to be trained has moved."""
    exported = run.checkout.path / "results/baseline/hf"
    model, report = run.model.from_pretrained(exported, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    vision = model.config.vision_config
    base = run.model.from_pretrained(run.base).state_dict()
    for name, tensor in model.state_dict().items():
        frozen = run.type == "qwen3_vl" and name.startswith("model.visual.")
        assert tensor.equal(base[name]) == frozen, name
    if run.type == "qwen3_vl":
        assert vision.deepstack_visual_indexes == [0, 1, 2]
    else:
        assert vision.window_size == 56
    assert verify(run.checkout.path / "results/baseline/save_dir", exported).tensors > 90


@pytest.mark.parametrize("run", ["qwen3_vl"], indirect=True)
def test_the_frameworks_engine_is_refused_before_anything_runs(run):
    results = sorted((run.checkout.path / "results").rglob("*"))
    for changed in ("engine=mindspeed", "answer={'engine': 'mindspeed'}"):
        said = run.checkout.snakemake("results/compare.csv", "--config", changed, fails=True)
        assert "MindSpeed-MM 2.0.0 doesn't know Qwen3-VL" in said
    assert sorted((run.checkout.path / "results").rglob("*")) == results


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_configurations_plan_a_whole_run(tmp_path, name):
    """From the download to the comparison; Qwen3-VL with the framework is refused."""
    checkout = Checkout.make(tmp_path / "run")
    given = ("--dry-run", "results/compare.csv", "--configfile", f"config/{name}.yaml")
    planned = dict(re.findall(r"^(\w+) +(\d+)$", checkout.snakemake(*given), re.MULTILINE))
    assert planned.items() >= {
        "download_model": "1", "prepare_checkpoint": "1", "finetune_model": "1",
        "export_model": "1", "answer_prompts": "2", "compare_answers": "1",
    }.items()  # fmt: skip
    assert not (checkout.path / "data").exists()
    settings = yaml.safe_load((checkout.path / f"config/{name}.yaml").read_text(encoding="utf-8"))
    if name.startswith("qwen3"):
        said = checkout.snakemake(*given, "--config", "engine=mindspeed", fails=True)
        assert "engine is mindspeed, but MindSpeed-MM 2.0.0 doesn't know Qwen3-VL" in said
        return
    shape = model_shape(PUBLISHED[published_in(settings["sources"]["model"]["name"])])
    layout = ParallelLayout.make(shape, **layout_options(typed("parallel", settings["parallel"])))
    assert layout.training_problems() == []


@pytest.mark.parametrize(
    ("name", "shards"), [("Qwen2.5-VL-7B", 5), ("Qwen3-VL-4B", 2), ("Qwen3-VL-8B", 4)]
)
def test_the_tables_sizes_are_those_of_the_published_tensors(name, shards):
    """Each file has a header besides."""
    weights = [
        file["bytes"]
        for file in files_of(f"{name.lower()}-instruct")
        if file["name"].endswith(".safetensors")
    ]
    parameters = count_parameters(model_shape(PUBLISHED[name])).all
    assert len(weights) == shards and 0 < sum(weights) - 2 * parameters < 100_000


def test_hashes_are_known_of_all_files_of_a_model_or_of_none():
    """Nobody says those of 3B."""
    assert all(file["sha256"] for file in files_of("qwen2.5-vl-7b-instruct"))
    assert [file["sha256"] for file in files_of("qwen2.5-vl-3b-instruct")] == [None] * 11


def files_of(name):
    table = yaml.safe_load((ROOT / "config/data_sources.yaml").read_text(encoding="utf-8"))
    return table[name]["files"]
