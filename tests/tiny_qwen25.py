"""A tiny Qwen2.5-VL, laid out as a download: the demo's language model and tokenizer, random vision weights.

Its pictures (10 x 8 patches at most) have up to six windows, so that layers with and without windows differ.
"""

import json
import math
from pathlib import Path

import torch
from mindtune.demo.base_model import write_base_model
from mindtune.models.shape import model_shape
from mindtune.models.tensors import hf_shapes
from safetensors.torch import load_file, save_file

VISION = {
    "depth": 4, "hidden_act": "silu", "hidden_size": 128, "intermediate_size": 344, "num_heads": 4,
    "in_chans": 3, "out_hidden_size": 128, "patch_size": 14, "spatial_merge_size": 2,
    "spatial_patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1, 3],
    "tokens_per_second": 2, "temporal_patch_size": 2,
}  # fmt: skip
CHANGED = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "model_type": "qwen2_5_vl",
    "vision_config": VISION,
}


def write_base(directory: Path, seed: int = 0) -> Path:
    """Write the model; returns the directory."""
    write_base_model(directory)
    config = _change(directory / "config.json", CHANGED)
    _change(directory / "preprocessor_config.json", {"processor_class": "Qwen2_5_VLProcessor"})
    shapes = hf_shapes(model_shape(config))
    shard = directory / "model-00002-of-00002.safetensors"
    save_file(random_vision(shapes, seed), shard, metadata={"format": "pt"})
    weight_map = {
        name: path.name
        for path in sorted(directory.glob("*.safetensors"))
        for name in load_file(path)
    }
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map})
    )
    return directory


def random_vision(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """bfloat16; queries and keys so large that it shows in a picture's tokens who attends to whom."""
    chance = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes.items():
        if name.startswith("visual."):
            noise = torch.randn(shape, generator=chance)
            if name.endswith(("norm1.weight", "norm2.weight", "ln_q.weight")):
                noise = 1 + 0.1 * noise
            elif name.endswith(".bias"):
                noise *= 0.05
            else:
                noise *= (1.4 if "attn.qkv" in name else 0.7) / math.prod(shape[1:]) ** 0.5
            found[name] = noise.bfloat16()
    return found


def _change(path: Path, changes: dict) -> dict:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(content))
    return content
