"""Small checkpoints of both families with random weights, in the published form, for the tests."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


@dataclass(frozen=True)
class Sizes:
    """Sizes of a made-up model; `head` and `vit_head` are the widths of one head."""

    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head: int = 8
    ffn: int = 48
    vocab: int = 64
    tied: bool = True
    depth: int = 2
    vit_heads: int = 4
    vit_head: int = 4
    family: str = "qwen2_vl"

    @property
    def hidden(self) -> int:
        return self.heads * self.head

    @property
    def embed(self) -> int:
        return self.vit_heads * self.vit_head

    @property
    def gated(self) -> bool:
        """Qwen2.5-VL: a gated MLP, and no biases of norms, in the vision model."""
        return self.family == "qwen2_5_vl"

    @property
    def vit_ffn(self) -> int:
        return 3 * self.embed if self.gated else 4 * self.embed

    def but(self, **changes) -> "Sizes":
        return replace(self, **changes)


def config_of(s: Sizes, dtype: str = "bfloat16", nested: bool = False) -> dict:
    """A config.json, in the published form or in that of transformers 5."""
    text = {
        "hidden_size": s.hidden,
        "intermediate_size": s.ffn,
        "max_position_embeddings": 512,
        "num_attention_heads": s.heads,
        "num_hidden_layers": s.layers,
        "num_key_value_heads": s.kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "hidden_act": "silu",
        "vocab_size": s.vocab,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, s.head // 2 - 2]},
    }
    vision = {
        "depth": s.depth,
        "in_chans": 3,
        "num_heads": s.vit_heads,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "spatial_patch_size": 4,
        "temporal_patch_size": 2,
    }
    if s.gated:
        vision |= {"hidden_size": s.embed, "out_hidden_size": s.hidden}
        vision |= {"intermediate_size": s.vit_ffn, "window_size": 16, "fullatt_block_indexes": [1]}
    else:
        vision |= {"embed_dim": s.embed, "hidden_size": s.hidden, "mlp_ratio": 4}
    class_of = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL"}
    return {
        "architectures": [f"{class_of[s.family]}ForConditionalGeneration"],
        "model_type": s.family,
        "tie_word_embeddings": s.tied,
        "torch_dtype": dtype,
        "transformers_version": "4.41.2",
        **({"text_config": {**text, "model_type": f"{s.family}_text"}} if nested else text),
        "vision_config": vision,
    }


def shapes_of(s: Sizes) -> dict[str, tuple[int, ...]]:
    """Published name -> shape, written down independently of the converter."""
    h, kv, e = s.hidden, s.kv_heads * s.head, s.embed
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (s.vocab, h)}
    for n in range(s.layers):
        b = f"model.layers.{n}."
        for which, rows in (("q", h), ("k", kv), ("v", kv)):
            shapes[f"{b}self_attn.{which}_proj.weight"] = (rows, h)
            shapes[f"{b}self_attn.{which}_proj.bias"] = (rows,)
        shapes[f"{b}self_attn.o_proj.weight"] = (h, h)
        shapes[f"{b}mlp.gate_proj.weight"] = shapes[f"{b}mlp.up_proj.weight"] = (s.ffn, h)
        shapes[f"{b}mlp.down_proj.weight"] = (h, s.ffn)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{b}{norm}.weight"] = (h,)
    shapes["model.norm.weight"] = (h,)
    if not s.tied:
        shapes["lm_head.weight"] = (s.vocab, h)
    for n in range(s.depth):
        b = f"visual.blocks.{n}."
        wide = ("mlp.gate_proj", "mlp.up_proj") if s.gated else ("mlp.fc1",)
        for module, rows, columns in (
            ("attn.qkv", 3 * e, e),
            ("attn.proj", e, e),
            *((module, s.vit_ffn, e) for module in wide),
            ("mlp.down_proj" if s.gated else "mlp.fc2", e, s.vit_ffn),
        ):
            shapes[f"{b}{module}.weight"], shapes[f"{b}{module}.bias"] = (rows, columns), (rows,)
    norms = [f"visual.blocks.{n}.norm{k}" for n in range(s.depth) for k in (1, 2)]
    for norm in (*norms, "visual.merger.ln_q"):
        for kind in ("weight",) if s.gated else ("weight", "bias"):
            shapes[f"{norm}.{kind}"] = (e,)
    shapes["visual.merger.mlp.0.weight"], shapes["visual.merger.mlp.0.bias"] = (
        (4 * e, 4 * e),
        (4 * e,),
    )
    shapes["visual.merger.mlp.2.weight"], shapes["visual.merger.mlp.2.bias"] = (h, 4 * e), (h,)
    shapes["visual.patch_embed.proj.weight"] = (e, 3, 2, 4, 4)
    return shapes


def tensors_of(
    s: Sizes, dtype: torch.dtype = torch.bfloat16, seed: int = 0, nans: bool = True
) -> dict:
    """Random weights: random bits, NaNs and all, so that only exact copies compare equal.

    Without `nans`, ordinary numbers: mm-convert multiplies some tensors by 0 on the way.
    """
    generator = torch.Generator().manual_seed(seed)
    if not nans:
        return {
            name: torch.empty(shape, dtype=dtype).uniform_(-0.05, 0.05, generator=generator)
            for name, shape in shapes_of(s).items()
        }
    size = torch.empty((), dtype=dtype).element_size()
    return {
        name: torch.randint(0, 256, (*shape[:-1], shape[-1] * size), generator=generator)
        .to(torch.uint8)
        .view(dtype)
        for name, shape in shapes_of(s).items()
    }


def write_hf(
    directory: Path,
    s: Sizes,
    *,
    files: int = 3,
    nested: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    tensors: dict | None = None,
    nans: bool = True,
) -> dict:
    """Write a Hugging Face directory of `files` shards (0: one model.safetensors, no index)."""
    directory.mkdir(parents=True)
    tensors = tensors_of(s, dtype, seed, nans) if tensors is None else tensors
    names = list(tensors)
    config = config_of(s, str(dtype).removeprefix("torch."), nested)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer_config.json").write_text('{"note": "stands for a tokenizer"}')
    (directory / "README.md").write_text("a model")
    if not files:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return tensors
    weight_map = {}
    for k in range(files):
        file = f"model-{k + 1:05d}-of-{files:05d}.safetensors"
        part = {name: tensors[name] for name in names[k::files]}
        save_file(part, directory / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return tensors


def read_hf(directory: Path) -> dict:
    """All tensors of a Hugging Face directory, read by safetensors itself."""
    tensors: dict = {}
    for path in sorted(directory.glob("*.safetensors")):
        tensors.update(load_file(path))
    return tensors


def read_rank(path: Path) -> dict:
    """A rank file, read by torch itself without running pickled code."""
    return torch.load(path, weights_only=True)


def rank_files(mm_dir: Path) -> dict[str, dict]:
    """Rank directory name -> content of each rank file below a checkpoint directory."""
    return {
        path.parent.name: read_rank(path) for path in sorted(mm_dir.glob("*/*/model_optim_rng.pt"))
    }


def same(one: dict, other: dict) -> bool:
    """Whether two dictionaries of tensors are equal in names, dtypes, shapes and every bit."""
    return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are equal in dtype, shape and every bit (NaNs too)."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
