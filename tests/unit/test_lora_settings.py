"""`train.lora` and `export` in the configuration."""

import importlib.util

import pytest
from mindtune.glue.settings_reading import package_problems, read_configuration
from mindtune.models.adapters import every_word
from mindtune.settings import ConfigError, load

MINDSPEED = {"engine": "mindspeed", "answer": {"engine": "hf"}}


def test_a_configuration_without_lora_is_as_it_was():
    common = load({}).common
    assert "lora" not in common["train"] and "export" not in common
    assert "recompute" not in common["hf"]


def test_defaults_are_mindspeed_mms():
    assert load({"train": {"lora": {}}}).common["train"]["lora"] == {
        "rank": 8, "alpha": 16, "dropout": 0.0,
        "target_modules": ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"],
    }  # fmt: skip


def test_an_experiment_can_do_without():
    raw = {"train": {"lora": {"rank": 4}}, "experiments": {"a": {}, "b": {"train": {"lora": None}}}}
    found = load(raw).experiments
    assert found["a"]["train"]["lora"]["rank"] == 4 and "lora" not in found["b"]["train"]


def test_names_of_modules_are_those_of_the_families():
    assert {"linear_qkv", "q_proj", "down_proj", "qkv", "mlp.0"} <= {*every_word()}
    assert len(every_word()) == len({*every_word()})


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"train": {"lora": {"rank": 0}}}, r"train\.lora\.rank is 0, but must be at least 1"),
        ({"train": {"lora": {"rank": 5000}}}, r"train\.lora\.rank is 5000, but must be at most"),
        ({"train": {"lora": {"rank": 2.5}}}, r"train\.lora\.rank is 2\.5, but must be a whole"),
        (
            {"train": {"lora": {"dropout": 1}}},
            r"train\.lora\.dropout is 1, but must be less than 1",
        ),
        (
            {"train": {"lora": {"target_modules": ["q_prj"]}}},
            r'target_modules\[0\] is "q_prj", but must be one of linear_qkv, .* Did you mean q_proj\?',
        ),
        ({"train": {"lora": {"target_modules": []}}}, "is empty; write at least 1 entry, or null"),
        (
            {"train": {"lora": {"target_modules": ["q_proj", "linear_fc1"]}}},
            r"has linear_fc1, a name of MindSpeed-MM's, and q_proj, one of transformers'",
        ),
        ({"train": {"lora": {"lora_r": 8}}}, r"train\.lora\.lora_r is not a key"),
        ({"train": {"lora": 16}}, r"train\.lora is 16, but must be a mapping"),
        ({"export": "adapter"}, "export is adapter, but no experiment trains one"),
        ({"export": "both"}, 'export is "both", but must be one of merged, adapter'),
        (
            MINDSPEED | {"train": {"lora": {"target_modules": ["q_proj"]}}},
            "has q_proj, which only the hf engine knows; write linear_qkv",
        ),
        ({"engine": "mindspeed", "train": {"lora": {}}}, "write `answer.engine: hf`"),
        (
            MINDSPEED | {"train": {"lora": {}}, "mindspeed": {"converter": "mm-convert"}},
            "mindspeed.converter is mm-convert, which can't read checkpoints of train.lora",
        ),
        (
            MINDSPEED | {"mindspeed": {"extra_arguments": ["--lora-r", "8"]}},
            r"has --lora-r, which has a key of its own: write train\.lora\.rank",
        ),
        ({"hf": {"recompute": "some"}}, 'recompute is "some", but must be one of none, full'),
    ],
)
def test_mistakes_are_told(raw, words):
    with pytest.raises(ConfigError, match=words):
        load(raw)


@pytest.fixture
def without(monkeypatch):
    """Nothing that is optional is installed."""
    optional = ("peft", "bitsandbytes", "liger_kernel")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "mindtune.glue.settings_reading.find_spec",
        lambda name, *rest: None if name in optional else found(name, *rest),
    )


CUDA = {"device": "cuda"}


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ({"train": {"lora": {}}}, "train.lora is given, but the package peft is not installed; "
         "`pip install -r envs/lora.txt`, or take it out."),
        ({"hf": CUDA | {"kernels": "liger"}}, "hf.kernels is liger, but the package liger-kernel is not "
         "installed; `pip install -r envs/kernels.txt`, or write torch."),
        ({"hf": {"optimizer": "adamw_8bit"}}, "hf.optimizer is adamw_8bit, but the package bitsandbytes is not "
         "installed; `pip install -r envs/optimizers.txt`, or write adamw."),
        ({"hf": {"frozen_weights": "nf4"}, "train": {"lora": {}}}, "hf.frozen_weights is nf4, but the package "
         "bitsandbytes is not installed; `pip install -r envs/optimizers.txt`, or write whole."),
    ],
)  # fmt: skip
def test_packages_are_missed_before_anything_runs(without, raw, sentence):
    with pytest.raises(ConfigError) as caught:
        read_configuration(raw)
    assert sentence in str(caught.value).replace("\n", " ")
    read_configuration(raw, own_python=False)  # such as in an environment of conda's


def test_packages_that_nobody_wants_are_not_missed(without):
    for raw in ({}, MINDSPEED | {"train": {"lora": {}}}, MINDSPEED | {"hf": {"optimizer": "adamw_8bit"}},
                {"train": {"lora": {}}, "experiments": {"one": {"tuned_model": "/models/one"}}}):  # fmt: skip
        assert list(package_problems(load(raw))) == []


def test_packages_that_are_there_are_not_missed(monkeypatch):
    monkeypatch.setattr("mindtune.glue.settings_reading.find_spec", lambda name: object())
    raw = {"train": {"lora": {}}, "hf": {"optimizer": "adamw_8bit", "frozen_weights": "nf4"}}
    assert list(package_problems(load(raw))) == []
