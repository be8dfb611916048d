"""Adapters in peft's form: merged as W + scale * B A, and refused where that would not be the model."""

import json
import math

import pytest
import torch
from mindtune.checkpoint.peft_adapter import merge_adapter
from mindtune.errors import UserError
from safetensors.torch import save_file
from tiny_qwen2vl import Sizes, equal, read_hf, write_hf

SIZES = Sizes()
RANK = 4
CONFIG = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "/home/else/Qwen2-VL",
    "r": RANK, "lora_alpha": 8, "lora_dropout": 0.05, "bias": "none", "fan_in_fan_out": False,
    "init_lora_weights": True, "modules_to_save": None, "use_dora": False, "use_rslora": False,
    "rank_pattern": {}, "alpha_pattern": {}, "layer_replication": None, "megatron_config": None,
    "loftq_config": {}, "target_modules": ["q_proj", "down_proj", "qkv"],
}  # fmt: skip
# Published name of a weight -> its module as transformers 4 and transformers 5 name it.
MODULES = {
    "model.layers.0.self_attn.q_proj": "model.language_model.layers.0.self_attn.q_proj",
    "model.layers.1.mlp.down_proj": "model.language_model.layers.1.mlp.down_proj",
    "visual.blocks.0.attn.qkv": "model.visual.blocks.0.attn.qkv",
}


def write_adapter(directory, tensors, newer=False, ranks=None, rename=lambda name: name, **changes):
    """An adapter on `tensors`, as peft saves it; returns module -> (B, A) in float32."""
    directory.mkdir()
    generator = torch.Generator().manual_seed(3)
    saved, pairs = {}, {}
    for module, newest in MODULES.items():
        rank = (ranks or {}).get(module, RANK)
        rows, columns = tensors[f"{module}.weight"].shape
        a = torch.randn(rank, columns, generator=generator)
        b = torch.randn(rows, rank, generator=generator)
        place = f"base_model.model.{newest if newer else module}"
        saved[rename(f"{place}.lora_A.weight")] = a
        saved[rename(f"{place}.lora_B.weight")] = b
        pairs[module] = (b, a)
    save_file(saved, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    (directory / "adapter_config.json").write_text(json.dumps(CONFIG | changes))
    return pairs


@pytest.fixture
def base(tmp_path):
    return write_hf(tmp_path / "base", SIZES, nans=False)


@pytest.mark.parametrize("newer", [False, True], ids=["names of 4", "names of 5"])
@pytest.mark.parametrize(
    ("changes", "scales"),
    [
        ({}, (2, 2, 2)),
        ({"use_rslora": True}, (8 / math.sqrt(RANK),) * 3),
        ({"alpha_pattern": {"down_proj": 2}}, (2, 0.5, 2)),
        ({"alpha_pattern": {r"layers\.0\.self_attn\.q_proj": 4}}, (1, 2, 2)),
    ],
    ids=["alpha / r", "rslora", "alpha of a module", "alpha of a pattern"],
)
def test_an_adapter_is_merged(tmp_path, base, newer, changes, scales):
    pairs = write_adapter(tmp_path / "lora", base, newer, **changes)
    assert merge_adapter(tmp_path / "lora", tmp_path / "base", tmp_path / "merged") == len(MODULES)
    found = read_hf(tmp_path / "merged")
    assert found.keys() == base.keys()
    for (module, (b, a)), scale in zip(pairs.items(), scales, strict=True):
        name = f"{module}.weight"
        wanted = (base[name].double() + scale * (b.double() @ a.double())).bfloat16()
        torch.testing.assert_close(found.pop(name), wanted, rtol=2**-7, atol=1e-6)
        assert not equal(base[name], wanted)
    assert all(equal(tensor, base[name]) for name, tensor in found.items())
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"config.json", "tokenizer_config.json", "model.safetensors.index.json"} <= names
    assert not any(name.startswith("adapter") for name in names)


def test_a_rank_of_its_own(tmp_path, base):
    module = "visual.blocks.0.attn.qkv"
    pairs = write_adapter(
        tmp_path / "lora", base, ranks={module: 2}, rank_pattern={r"visual.*\.qkv": 2}
    )
    merge_adapter(tmp_path / "lora", tmp_path / "base", tmp_path / "merged")
    b, a = pairs[module]
    wanted = (base[f"{module}.weight"].float() + 8 / 2 * (b @ a)).bfloat16()
    found = read_hf(tmp_path / "merged")[f"{module}.weight"]
    torch.testing.assert_close(found, wanted, rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type IA3, but only LORA"),
        ({"use_dora": True}, r"use_dora \(DoRA\)"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save \(whole modules\)"),
        (
            {"init_lora_weights": "pissa_niter_16"},
            "pissa_niter_16, which changed the base's weights",
        ),
        ({"bias": "lora_only"}, "bias lora_only"),
        ({"lora_alpha": None}, "lora_alpha None, but it must be a number"),
        ({"alpha_pattern": {"(": 1}}, "no regular expression"),
        ({"r": 8}, "ranks 4 and 4 .* says 8; they are of different trainings"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(tmp_path, base, changes, words):
    write_adapter(tmp_path / "lora", base, **changes)
    with pytest.raises(UserError, match=words):
        merge_adapter(tmp_path / "lora", tmp_path / "base", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("rename", "words"),
    [
        (lambda name: name.replace("lora_A", "lora_embedding_A"), "no matrix of plain LoRA"),
        (lambda name: name.replace("q_proj.lora_A", "q_proj.lora_A.other"), "no matrix of plain"),
        (
            lambda name: name.replace("layers.0", "layers.7"),
            "layers.7.* which .*base does not have",
        ),
        (lambda name: name.replace("q_proj.lora_A", "k_proj.lora_A"), "half an adapter"),
        (lambda name: name.replace("q_proj", "k_proj"), r"matrix of 32 x 32, but in .* 16 x 32"),
    ],
    ids=["embedding", "another name", "a layer too many", "half", "another size"],
)
def test_an_adapter_of_another_base_is_refused(tmp_path, base, rename, words):
    write_adapter(tmp_path / "lora", base, rename=rename)
    with pytest.raises(UserError, match=words):
        merge_adapter(tmp_path / "lora", tmp_path / "base", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_adapters_without_safetensors_are_told(tmp_path, base):
    write_adapter(tmp_path / "lora", base)
    (tmp_path / "lora/adapter_model.safetensors").rename(tmp_path / "lora/adapter_model.bin")
    with pytest.raises(UserError, match=r"no adapter_model\.safetensors; save the adapter as"):
        merge_adapter(tmp_path / "lora", tmp_path / "base", tmp_path / "merged")
