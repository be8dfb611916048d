"""hf.frozen_weights: adapters beside weights of 4 bits. It wants `pip install -r envs/optimizers.txt`."""

import builtins
import shutil

import pytest
import torch
from mindtune.checkpoint import mm_to_hf
from mindtune.checkpoint.adapters import load_adapters
from mindtune.engines import training_check
from mindtune.engines.hf.model import load_model
from mindtune.engines.hf.quantizing import is_quantized, quantize_layers
from mindtune.errors import UserError
from mindtune.memory import Step, training_memory
from mindtune.models.published import PUBLISHED
from mindtune.models.shape import model_shape, read_config
from mindtune.scale import count_parameters
from mindtune.settings.hf import hf_problems
from mindtune.settings.sections import Settings
from mindtune.settings.typed import made_of, typed
from safetensors.torch import load_file
from unit.test_finetune import MACHINE, TRAIN, job_of, place, rows, train  # noqa: F401 - a fixture
from unit.test_lora import LORA

FOUR = {"frozen_weights": "nf4"}


@pytest.fixture
def bitsandbytes():
    return pytest.importorskip("bitsandbytes", reason="pip install -r envs/optimizers.txt")


def quantized(place, precision=torch.float32):  # noqa: F811
    model = load_model(place / "base", precision)
    quantize_layers(model)
    return model.to("cpu")


def test_only_linear_modules_of_layers_are_rounded_and_to_sixteen_values(bitsandbytes, place):  # noqa: F811
    model, whole = quantized(place), load_model(place / "base", torch.float32)
    assert is_quantized(model) and not is_quantized(whole)
    own = dict(model.named_modules())
    rounded = [name for name, one in own.items() if type(one).__name__ == "Linear4bit"]
    layers = len(model.model.language_model.layers)
    assert len(rounded) == 7 * layers and all("language_model.layers." in one for one in rounded)
    weight = own[rounded[0]].weight
    found = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
    wanted = whole.get_submodule(rounded[0]).weight
    assert found.shape == wanted.shape
    blocks = (
        found.flatten().view(-1, 64) / found.flatten().view(-1, 64).abs().amax(1, True)
    ).round(decimals=3)
    assert len(blocks.unique()) <= 17  # sixteen, and zero of either sign
    assert 0 < (found - wanted).norm() < 0.2 * wanted.norm()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_resumes_exactly_and_its_adapters_go_into_the_whole_weights(
    bitsandbytes, place, tmp_path, precision  # noqa: F811
):  # fmt: skip
    machine = FOUR | {"precision": precision, "tokens_per_pass": 300}
    given = {"lora": LORA | {"dropout": 0.1}}
    whole = train(place, tmp_path / "a", machine=machine, **given)
    shutil.rmtree(tmp_path / "a/iter_0000004")
    assert train(place, tmp_path / "a", machine=machine, **given) == whole
    usual = train(place, tmp_path / "b", machine=machine | {"frozen_weights": "whole"}, **given)
    assert usual != whole and len(usual) == len(whole)
    ours, theirs = ([float(row["loss"]) for row in rows(tmp_path / one)] for one in "ab")
    assert ours == pytest.approx(theirs, rel=0.1) and ours != theirs
    config = read_config(place / "base")
    adapters = load_adapters(tmp_path / "a", config, 4)
    mm_to_hf(tmp_path / "a", place / "base", tmp_path / "hf")
    merged, base = ({k: v for f in sorted(d.glob("*.safetensors")) for k, v in load_file(f).items()}
                    for d in (tmp_path / "hf", place / "base"))  # fmt: skip
    for name, tensor in base.items():
        assert torch.equal(merged[name].to(tensor.dtype), tensor) == (name not in adapters), name


def test_it_is_checked_before_anything_is_moved(place, tmp_path, monkeypatch):  # noqa: F811
    found = builtins.__import__

    def without(name, *rest, **named):
        if name.startswith("bitsandbytes"):
            raise ImportError("No module named 'bitsandbytes'")
        return found(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    job = job_of(place, tmp_path / "a", machine=FOUR, lora=LORA)
    with pytest.raises(UserError, match=r"`pip install -r envs/optimizers\.txt`, or write whole"):
        training_check("hf")(job, 0)


@pytest.mark.parametrize(
    ("machine", "lora", "words"),
    [
        ({}, None, "but without train.lora nothing is frozen"),
        ({"shard": "layers", "devices": 2}, LORA, "which devices can't share (hf.shard)"),
        ({"device": "npu"}, LORA, "which bitsandbytes can't do on npu"),
    ],
)
def test_what_cannot_work_is_said(machine, lora, words):
    settings = {
        "train": TRAIN | {"lora": lora},
        "parallel": {"context_parallel_size": 1},
        "hf": MACHINE | FOUR | machine,
    }
    assert any(words in problem for problem in hf_problems(made_of(Settings, settings)))


def test_the_estimate_is_what_a_layer_takes(bitsandbytes, place):  # noqa: F811
    shape = model_shape(PUBLISHED["Qwen2-VL-7B"])
    train = typed("train", TRAIN | {"lora": LORA})
    usual, four = (
        training_memory(
            shape, count_parameters(shape).all, train, "bf16", Step(1, 1, frozen_weights=kind)
        ).weights
        for kind in ("whole", "nf4")
    )
    assert 5.6e9 < four < 0.45 * usual
    linear = bitsandbytes.nn.Linear4bit(1024, 4096, bias=False, quant_type="nf4").to("cpu")
    state = linear.weight.quant_state
    held = linear.weight.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    assert held / (1024 * 4096) == pytest.approx(0.5 + 1 / 64 + 4 / (64 * 256), rel=1e-3)
