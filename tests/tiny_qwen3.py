"""A tiny Qwen3-VL, laid out as a download: the demo's tokenizer, random weights.

Its heads are wider than hidden / heads, and what enters the decoder's first layers is as large as what
stands for the pictures' tokens, so that it shows where that is lost or taken for another picture's.
"""

import json
import math
from pathlib import Path

import torch
from mindtune.demo.base_model import VOCABULARY, model_config, write_base_model
from mindtune.models.shape import model_shape
from mindtune.models.tensors import hf_shapes
from safetensors.torch import save_file
from tokenizers import Tokenizer

TEXT = {
    "attention_bias": False, "attention_dropout": 0.0, "dtype": "bfloat16", "head_dim": 40,
    "hidden_act": "silu", "hidden_size": 128, "initializer_range": 0.02, "intermediate_size": 320,
    "max_position_embeddings": 2048, "model_type": "qwen3_vl_text", "num_attention_heads": 4,
    "num_hidden_layers": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
    "rope_scaling": {"mrope_interleaved": True, "mrope_section": [8, 6, 6], "rope_type": "default"},
    "rope_theta": 10000, "use_cache": True, "vocab_size": VOCABULARY,
}  # fmt: skip
VISION = {
    "deepstack_visual_indexes": [0, 1, 2], "depth": 4, "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 64, "in_channels": 3, "initializer_range": 0.02, "intermediate_size": 160,
    "model_type": "qwen3_vl", "num_heads": 4, "num_position_embeddings": 36, "out_hidden_size": 128,
    "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
}  # fmt: skip
PROCESSOR = {
    "size": {"shortest_edge": 64 * 64, "longest_edge": 128 * 128}, "patch_size": 16,
    "temporal_patch_size": 2, "merge_size": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    "processor_class": "Qwen3VLProcessor", "image_processor_type": "Qwen2VLImageProcessorFast",
}  # fmt: skip
TOKENS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def write_base(directory: Path, seed: int = 0, tied: bool = True) -> Path:
    """Write the model; returns the directory."""
    write_base_model(directory)
    ids = model_config(Tokenizer.from_file(str(directory / "tokenizer.json")))
    config = {
        "architectures": ["Qwen3VLForConditionalGeneration"], "model_type": "qwen3_vl",
        "tie_word_embeddings": tied, "text_config": TEXT, "vision_config": VISION,
        **{name: ids[name] for name in TOKENS},
    }  # fmt: skip
    _write(directory / "config.json", config)
    _write(directory / "preprocessor_config.json", PROCESSOR)
    (directory / "chat_template.json").unlink()
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    _write(directory / "tokenizer_config.json", settings | {"chat_template": None})
    for shard in directory.glob("*.safetensors"):
        shard.unlink()
    tensors = random_weights(hf_shapes(model_shape(config)), seed)
    parts = [
        {n: t for n, t in tensors.items() if ("visual" in n) is seen} for seen in (False, True)
    ]
    weight_map = {}
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05d}-of-00002.safetensors"
        save_file(part, directory / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    _write(directory / "model.safetensors.index.json", index)
    return directory


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """bfloat16; norms near 1, and what they norm neither vanishing nor growing."""
    chance = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=chance)
        if "norm" in name and name.endswith(".weight"):
            noise = 1 + 0.1 * noise
        elif name.endswith(".bias"):
            noise *= 0.05
        elif name.endswith(("embed_tokens.weight", "lm_head.weight")):
            noise *= 0.1
        elif not name.endswith("pos_embed.weight"):
            noise *= 1 / math.prod(shape[1:]) ** 0.5
        found[name] = noise.bfloat16()
    return found


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2))
