"""Estimates, held against what is published and what a run really left."""

import json
import re

import estimate_scale
import pytest
from mindtune.models.published import PUBLISHED, published_in
from mindtune.models.shape import model_shape
from mindtune.scale import checkpoint_bytes, count_parameters, estimate
from mindtune.settings import load

ROOT = estimate_scale.ROOT
COUNTS = {
    "Qwen2-VL-2B": 2_208_985_600, "Qwen2-VL-7B": 8_291_375_616, "Qwen2-VL-72B": 73_405_560_320
}  # fmt: skip


@pytest.mark.parametrize(("name", "parameters"), COUNTS.items())
def test_parameters_are_those_of_the_published_models(name, parameters):
    assert count_parameters(model_shape(PUBLISHED[name])).all == parameters


def test_checkpoints_of_a_real_run_have_the_estimated_size(finished):
    config = json.loads((finished.path / "results/baseline/hf/config.json").read_text())
    parameters = count_parameters(model_shape(config))
    train = estimate_scale.configuration_in(finished.path / "config/config.yaml").typed().train
    folder = finished.path / "results/baseline/save_dir/iter_0000006"
    size = sum(path.stat().st_size for path in folder.rglob("*.pt"))
    assert checkpoint_bytes(parameters, train, "fp32") == pytest.approx(size, rel=0.01)
    weights = (finished.path / "results/baseline/hf").glob("*.safetensors")
    exported = sum(path.stat().st_size for path in weights)
    assert 4 * parameters.all == pytest.approx(exported, rel=0.02)


def test_jobs_are_those_that_snakemake_plans(finished):
    need = estimate(
        estimate_scale.configuration_in(finished.path / "config/config.yaml"),
        count_parameters(model_shape(PUBLISHED["Qwen2-VL-2B"])),
    )
    said = finished.snakemake("--dry-run", "--forceall", "results/compare.csv")
    planned = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", said, re.M)}
    heavy = ("convert_data", "prepare_checkpoint", "finetune_model", "export_model")
    assert need.jobs == sum(planned[rule] for rule in (*heavy, "answer_prompts"))


def test_hours_count_every_experiment_and_npu():
    raw = {
        "engine": "mindspeed",
        "mindspeed": {"npus_per_node": 8, "nodes": 2},
        "train": {"train_iters": 1000, "global_batch_size": 96},
        "experiments": {"a": {}, "b": {"train": {"train_iters": 500}}},
    }
    parameters = count_parameters(model_shape(PUBLISHED["Qwen2-VL-2B"]))
    assert estimate(load(raw), parameters).device_hours is None
    assert estimate(load(raw), parameters, 3600.0).device_hours == pytest.approx(1.5 * 16)


def test_the_command_says_it_in_words(finished, capsys):
    loss = str(finished.path / "results/baseline/loss.csv")
    config = str(finished.path / "config/config.yaml")
    assert estimate_scale.main(["--configfile", config, "--loss-csv", loss]) == 0
    said = capsys.readouterr().out
    assert "trained parameters     870,528" in said
    assert "for the iterations alone" in said
    assert "memory of a device" in said and "  activations " in said


def test_with_lora_a_checkpoint_has_adapters_only(capsys):
    config = str(ROOT / "config/demo-lora.yaml")
    assert estimate_scale.main(["--configfile", config]) == 0
    said = capsys.readouterr().out
    assert "trained parameters     73,728" in said and "0.885 MB, 6 of them" in said
    assert estimate_scale.main(["--configfile", config, "--model", "Qwen2-VL-7B"]) == 0
    assert "trained parameters     16,973,824" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--configfile", "nowhere.yaml"], "--configfile nowhere.yaml can't be read"),
        (
            ["--model", "9B"],
            "--model is 9B, but 9B/config.json can't be read; write Qwen2-VL-2B, Qwen2-VL-7B, ",
        ),
        (["--model", "7B"], "--model 7B can be Qwen2-VL-7B or Qwen2.5-VL-7B; write which of them."),
        (["--loss-csv", str(ROOT / "README.md")], "has no usable column ms_per_iteration"),
        (["--loss-csv", "nowhere.csv"], "--loss-csv nowhere.csv can't be read"),
    ],
)
def test_mistakes_are_told_in_a_sentence(arguments, sentence, capsys):
    assert estimate_scale.main(arguments) == 1
    assert sentence in capsys.readouterr().err


def test_a_config_that_is_no_json(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{")
    assert estimate_scale.main(["--model", str(tmp_path)]) == 1
    assert "config.json is not JSON" in capsys.readouterr().err


def test_a_published_model_is_named_in_short_and_in_full():
    shape = estimate_scale.shape_of
    assert shape("2b") == shape("qwen2-vl-2b") == model_shape(PUBLISHED["Qwen2-VL-2B"])
    assert shape("Qwen2.5-VL-7B").model_type == "qwen2_5_vl"
    assert published_in("qwen2-vl-2b-instruct") == "Qwen2-VL-2B"
    assert shape("4b") == model_shape(PUBLISHED["Qwen3-VL-4B"])
    assert published_in("qwen2.5-vl-3b-instruct") == "Qwen2.5-VL-3B"
    assert published_in("qwen2-vl-2b5") is published_in("another") is None
