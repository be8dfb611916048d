"""LoRA of Qwen2.5-VL, whose vision model has gated layers as well: saved, exported and merged."""

import pytest
import torch
from mindtune.checkpoint import mm_to_hf
from mindtune.checkpoint.adapters import export_adapter, save_adapters
from mindtune.engines.hf.adapters import Adapters
from mindtune.engines.hf.model import load_model
from mindtune.models.shape import read_config
from mindtune.settings.typed import typed
from tiny_qwen25 import write_base

LORA = {"rank": 2, "alpha": 4, "dropout": 0.0}
FUSED = ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"]


@pytest.mark.parametrize("frozen", [True, False], ids=["language", "both"])
@pytest.mark.parametrize("modules", [FUSED, ["up_proj", "proj"]], ids=["fused", "separate"])
def test_merged_is_base_and_adapter_in_transformers(tmp_path, frozen, modules):
    from peft import PeftModel

    base = write_base(tmp_path / "base")
    config = read_config(base)
    train = {"freeze_vision_encoder": frozen, "freeze_vision_projector": frozen, "seed": 1}
    train["lora"] = LORA | {"target_modules": modules}
    adapters = Adapters(load_model(base, torch.float32), config, typed("train", train))
    generator = torch.Generator().manual_seed(2)
    for _, *highs in adapters.tensors().values():
        for high in highs:
            high.normal_(0, 0.1, generator=generator)
    save_adapters(tmp_path / "save_dir", 1, adapters.tensors(), config, lora=train["lora"])
    mm_to_hf(tmp_path / "save_dir", base, tmp_path / "merged")
    export_adapter(tmp_path / "save_dir", base, tmp_path / "adapter")
    model = PeftModel.from_pretrained(load_model(base, torch.float32), tmp_path / "adapter")
    adapted = [name for name, layer in model.named_modules() if hasattr(layer, "lora_A")]
    assert any("visual" in name for name in adapted) != frozen
    assert len(adapted) == len(adapters.weights)
    theirs = model.merge_and_unload().state_dict()
    ours = load_model(tmp_path / "merged", torch.float32).state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
