"""Partial re-execution: what an edit runs again, exactly."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from workflow.conftest import SMALL, Checkout, merged

SOURCES = {"draw_scenes": 1}
DATA = {"convert_data": 1}
PROMPTS = {"select_prompts": 1}
MODEL = {"build_base_model": 1}
MM = {"prepare_checkpoint": 1}
TRAIN = {"finetune_model": 2, "export_model": 2}
BEFORE = {"answer_prompts": 1}
AFTER = {"answer_prompts": 2}
BOTH = {"answer_prompts": 3}
COMPARE = {"compare_answers": 1}


def one(train):
    """Both experiments share nothing of training: an edit of one runs one."""
    return {name: count // 2 for name, count in train.items()}


# key -> (another value, the rules that run again). The README's table says the same in words.
EDITS = {
    "sources.demo.pictures": (64, SOURCES | DATA | PROMPTS | TRAIN | BOTH | COMPARE),
    "sources.demo.text_only": (4, SOURCES | DATA | PROMPTS | TRAIN | BOTH | COMPARE),
    "sources.demo.seed": (2, SOURCES | DATA | PROMPTS | TRAIN | BOTH | COMPARE),
    "sources.download.directory": ("elsewhere", {}),
    "sources.download.connections": (2, {}),
    "sources.download.retries": (1, {}),
    "sources.download.timeout": (5, {}),
    "sources.download.offline": (True, {}),
    "data.held_out_fraction": (0.2, DATA | PROMPTS | TRAIN | BOTH | COMPARE),
    "data.split_seed": (2, DATA | PROMPTS | TRAIN | BOTH | COMPARE),
    "data.max_samples": (50, DATA | PROMPTS | TRAIN | BOTH | COMPARE),
    "data.subset_seed": (3, DATA | PROMPTS | TRAIN | BOTH | COMPARE),
    "data.check_pictures": ("size", DATA | PROMPTS | TRAIN | BOTH | COMPARE),
    "data.max_dropped_fraction": (0.02, DATA | PROMPTS | TRAIN | BOTH | COMPARE),
    "processor.image_resolution": (200000, TRAIN | BOTH | COMPARE),
    "parallel.tensor_model_parallel_size": (2, MM | TRAIN | AFTER | COMPARE),
    "parallel": (
        {"llm_pp_layers": [[4]], "vit_pp_layers": [[4]]},
        MM | TRAIN | AFTER | COMPARE,
    ),
    "train.train_iters": (8, TRAIN | AFTER | COMPARE),
    "train.save_interval": (3, TRAIN | AFTER | COMPARE),
    "train.eval_interval": (2, TRAIN | AFTER | COMPARE),
    "train.eval_iters": (0, TRAIN | AFTER | COMPARE),
    "train.micro_batch_size": (8, TRAIN | AFTER | COMPARE),
    "train.global_batch_size": (4, TRAIN | AFTER | COMPARE),
    "train.lr": (2e-3, one(TRAIN) | BEFORE | COMPARE),  # `hot` has an lr of its own
    "train.min_lr": (1e-5, TRAIN | AFTER | COMPARE),
    "train.lr_decay_style": ("linear", TRAIN | AFTER | COMPARE),
    "train.lr_warmup_fraction": (0.2, TRAIN | AFTER | COMPARE),
    "train.weight_decay": (0.1, TRAIN | AFTER | COMPARE),
    "train.clip_grad": (0.5, TRAIN | AFTER | COMPARE),
    "train.adam_beta1": (0.8, TRAIN | AFTER | COMPARE),
    "train.adam_beta2": (0.99, TRAIN | AFTER | COMPARE),
    "train.adam_eps": (1e-7, TRAIN | AFTER | COMPARE),
    "train.seed": (43, TRAIN | AFTER | COMPARE),
    "train.seq_length": (512, TRAIN | AFTER | COMPARE),
    "train.freeze_vision_encoder": (False, TRAIN | AFTER | COMPARE),
    "train.freeze_vision_projector": (False, TRAIN | AFTER | COMPARE),
    "train.save_optim": (False, TRAIN | AFTER | COMPARE),
    "hf.device": ("cuda", TRAIN | BOTH | COMPARE),
    "hf.precision": ("bf16", TRAIN | BOTH | COMPARE),
    "hf.threads": (2, TRAIN | BOTH | COMPARE),
    "answer.max_new_tokens": (9, BOTH | COMPARE),
    "answer.batch_size": (4, BOTH | COMPARE),
    "prompts.named": (
        [{"image": "000000033471.jpg", "prompt": "What is this?"}],
        PROMPTS | BOTH | COMPARE,
    ),
    "prompts.held_out_questions": (6, PROMPTS | BOTH | COMPARE),
    "prompts.turns": ("first", PROMPTS | BOTH | COMPARE),
    "prompts.families": ({"color": "color"}, PROMPTS | BOTH | COMPARE),
    "compare.confidence": (0.9, COMPARE),
    "experiments": ({"baseline": {}}, COMPARE),
}
# Keys whose other values need files that are not there in a dry run, or another engine.
ELSEWHERE = {
    "engine",
    "sources.images",
    "sources.instructions",
    "sources.model",
    "sources.mixture",
    "sources.table",
}


def nested(dotted, value):
    for key in reversed(dotted.split(".")):
        value = {key: value}
    return value


@pytest.fixture
def edited(finished):
    """Change the finished run's configuration; it is put back afterwards."""
    yield lambda key, value: finished.configure(
        {**SMALL, key: value} if "." not in key else merged(SMALL, nested(key, value))
    )
    finished.configure(SMALL)


@pytest.mark.parametrize("key", EDITS)
def test_an_edit_runs_these_rules_and_no_others(finished, edited, key):
    value, expected = EDITS[key]
    edited(key, value)
    assert finished.planned() == expected


def test_every_key_of_the_schema_has_a_line_in_the_table():
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from mindtune.config import load_schema

    schema = load_schema(Path(__file__).parents[2] / "config" / "schema.yaml")

    def leaves(node, path=()):
        for key, child in node.get("properties", {}).items():
            if "properties" in child:
                yield from leaves(child, (*path, key))
            else:
                yield ".".join((*path, key))

    covered = set(EDITS) | ELSEWHERE | {"parallel.llm_pp_layers", "parallel.vit_pp_layers"}
    assert set(leaves(schema)) == covered - {"parallel"}


def test_comments_order_and_format_of_the_configuration_run_nothing(finished):
    path = finished.path / "config/config.yaml"
    before = path.read_text()
    sections = [part for part in before.split("\n\n") if part]
    text = "# a comment\n" + before.replace("lr: 0.001", "lr:   1.0e-3   # the same")
    assert text.count("1.0e-3") == 1 and sections
    try:
        path.write_text(text)
        assert finished.planned() == {}
    finally:
        path.write_text(before)


def test_one_more_experiment_trains_only_that(finished, edited):
    edited("experiments", SMALL["experiments"] | {"cold": {"train": {"lr": 1e-5}}})
    assert finished.planned() == one(TRAIN) | BEFORE | COMPARE


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("scripts/mindtune/comparison/tables.py", COMPARE),
        ("scripts/mindtune/engines/hf/answer.py", BOTH | COMPARE),
        ("scripts/mindtune/engines/hf/schedule.py", TRAIN | AFTER | COMPARE),
        ("scripts/mindtune/data/prompts.py", PROMPTS | BOTH | COMPARE),
        ("scripts/mindtune/demo/drawing.py", SOURCES | DATA | PROMPTS | TRAIN | BOTH | COMPARE),
        ("scripts/compare_answers.py", COMPARE),
        ("scripts/pretrain_demo_base.py", {}),
        ("scripts/mindtune/config/sentences.py", {}),
    ],
)
def test_an_edit_of_code_runs_what_depends_on_it(finished, file, expected):
    path = finished.path / file
    before = path.read_text()
    try:
        path.write_text(before + "\n# an edit\n")
        assert finished.planned() == expected
    finally:
        path.write_text(before)
    assert finished.planned() == {}


def test_time_stamps_of_code_and_configuration_run_nothing(finished):
    for path in [*finished.path.rglob("*.py"), *finished.path.rglob("*.smk")]:
        os.utime(path)
    os.utime(finished.path / "Snakefile")
    os.utime(finished.path / "config/config.yaml")
    assert finished.planned() == {}


@pytest.mark.parametrize("with_metadata", [True, False], ids=["with .snakemake", "results alone"])
def test_a_fresh_checkout_with_the_results_copied_over_runs_nothing(
    finished, tmp_path, with_metadata
):
    fresh = Checkout.make(tmp_path / "fresh")
    shutil.copytree(finished.path / "results", fresh.path / "results")  # keeps times, as cp -a
    if with_metadata:
        shutil.copytree(finished.path / ".snakemake", fresh.path / ".snakemake")
    assert fresh.planned() == {}
