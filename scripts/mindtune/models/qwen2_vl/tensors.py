"""The names of Qwen2-VL's tensors in both worlds, and their shapes."""

import re
from collections.abc import Callable

from mindtune.models import FAMILIES
from mindtune.models.shape import ModelShape
from mindtune.models.tensors import Fuse, Part, Rule, Split, Tensors

EMBEDDING_MM = "text_decoder.embedding.word_embeddings.weight"
OUTPUT_MM = "text_decoder.output_layer.weight"
EMBEDDING_HF = "model.embed_tokens.weight"
OUTPUT_HF = "lm_head.weight"

_VIT = "image_encoder.encoder.blocks.layers.{n}."
_LLM = "text_decoder.decoder.layers.{n}."
_PROJECTOR = "image_encoder.projector."
_BLOCK = "visual.blocks.{n}."
_LAYER = "model.layers.{n}."


def _qkv(kind: str) -> tuple[str, ...]:
    return tuple(f"{_LAYER}self_attn.{which}_proj.{kind}" for which in "qkv")


def _pair(part: Part, mm: str, hf: str, weight: Split, bias: Split) -> list[Rule]:
    """Rules of a module's weight and bias that keep their content."""
    return [
        Rule(part, f"{mm}.weight", (f"{hf}.weight",), Fuse.SAME, weight),
        Rule(part, f"{mm}.bias", (f"{hf}.bias",), Fuse.SAME, bias),
    ]


RULES: tuple[Rule, ...] = (
    Rule(
        Part.PATCHES,
        "image_encoder.encoder.patch_embed.proj.weight",
        ("visual.patch_embed.proj.weight",),
    ),
    *_pair(Part.VIT_LAYER, f"{_VIT}input_layernorm", f"{_BLOCK}norm1", Split.COPY, Split.COPY),
    *(
        Rule(
            Part.VIT_LAYER,
            f"{_VIT}self_attention.linear_qkv.{kind}",
            (f"{_BLOCK}attn.qkv.{kind}",),
            Fuse.VISION_QKV,
            Split.ROWS,
        )
        for kind in ("weight", "bias")
    ),
    *_pair(
        Part.VIT_LAYER,
        f"{_VIT}self_attention.linear_proj",
        f"{_BLOCK}attn.proj",
        Split.COLUMNS,
        Split.COPY,
    ),
    *_pair(Part.VIT_LAYER, f"{_VIT}pre_mlp_layernorm", f"{_BLOCK}norm2", Split.COPY, Split.COPY),
    *_pair(Part.VIT_LAYER, f"{_VIT}mlp.linear_fc1", f"{_BLOCK}mlp.fc1", Split.ROWS, Split.ROWS),
    *_pair(Part.VIT_LAYER, f"{_VIT}mlp.linear_fc2", f"{_BLOCK}mlp.fc2", Split.COLUMNS, Split.COPY),
    *_pair(Part.PROJECTOR, f"{_PROJECTOR}layernorm", "visual.merger.ln_q", Split.COPY, Split.COPY),
    *_pair(
        Part.PROJECTOR,
        f"{_PROJECTOR}encoder.linear_fc1",
        "visual.merger.mlp.0",
        Split.ROWS,
        Split.ROWS,
    ),
    *_pair(
        Part.PROJECTOR,
        f"{_PROJECTOR}encoder.linear_fc2",
        "visual.merger.mlp.2",
        Split.COLUMNS,
        Split.COPY,
    ),
    Rule(Part.EMBEDDING, EMBEDDING_MM, (EMBEDDING_HF,), Fuse.SAME, Split.ROWS),
    Rule(Part.LLM_LAYER, f"{_LLM}input_layernorm.weight", (f"{_LAYER}input_layernorm.weight",)),
    *(
        Rule(
            Part.LLM_LAYER,
            f"{_LLM}self_attention.linear_qkv.{kind}",
            _qkv(kind),
            Fuse.QKV,
            Split.ROWS,
        )
        for kind in ("weight", "bias")
    ),
    Rule(
        Part.LLM_LAYER,
        f"{_LLM}self_attention.linear_proj.weight",
        (f"{_LAYER}self_attn.o_proj.weight",),
        Fuse.SAME,
        Split.COLUMNS,
    ),
    Rule(
        Part.LLM_LAYER,
        f"{_LLM}pre_mlp_layernorm.weight",
        (f"{_LAYER}post_attention_layernorm.weight",),
    ),
    Rule(
        Part.LLM_LAYER,
        f"{_LLM}mlp.linear_fc1.weight",
        (f"{_LAYER}mlp.gate_proj.weight", f"{_LAYER}mlp.up_proj.weight"),
        Fuse.GATE_UP,
        Split.GATE_UP,
    ),
    Rule(
        Part.LLM_LAYER,
        f"{_LLM}mlp.linear_fc2.weight",
        (f"{_LAYER}mlp.down_proj.weight",),
        Fuse.SAME,
        Split.COLUMNS,
    ),
    Rule(Part.FINAL_NORM, "text_decoder.decoder.final_layernorm.weight", ("model.norm.weight",)),
    Rule(Part.OUTPUT, OUTPUT_MM, (OUTPUT_HF,), Fuse.SAME, Split.ROWS),
)


def sizes(shape: ModelShape) -> Callable[[str], tuple[int, ...]]:
    """The shape of each published tensor, by its name."""
    h, e, m = shape.hidden, shape.vit_hidden, shape.merged_hidden
    q, kv = shape.heads * shape.head_dim, shape.kv_rows
    by_ending = {
        "self_attn.q_proj.weight": (q, h),
        "self_attn.q_proj.bias": (q,),
        "self_attn.k_proj.weight": (kv, h),
        "self_attn.k_proj.bias": (kv,),
        "self_attn.v_proj.weight": (kv, h),
        "self_attn.v_proj.bias": (kv,),
        "self_attn.o_proj.weight": (h, q),
        "mlp.gate_proj.weight": (shape.ffn, h),
        "mlp.up_proj.weight": (shape.ffn, h),
        "mlp.down_proj.weight": (h, shape.ffn),
        "input_layernorm.weight": (h,),
        "post_attention_layernorm.weight": (h,),
        "embed_tokens.weight": (shape.vocab, h),
        "model.norm.weight": (h,),
        "lm_head.weight": (shape.vocab, h),
        "patch_embed.proj.weight": (e, *shape.patch_shape),
        "attn.qkv.weight": (3 * e, e),
        "attn.qkv.bias": (3 * e,),
        "attn.proj.weight": (e, e),
        "mlp.fc1.weight": (shape.vit_ffn, e),
        "mlp.fc1.bias": (shape.vit_ffn,),
        "mlp.fc2.weight": (e, shape.vit_ffn),
        "merger.mlp.0.weight": (m, m),
        "merger.mlp.0.bias": (m,),
        "merger.mlp.2.weight": (shape.projector_out, m),
        "merger.mlp.2.bias": (shape.projector_out,),
    }

    def size_of(name: str) -> tuple[int, ...]:
        # What no ending names is a norm or a bias as wide as the vision model.
        return next((s for end, s in by_ending.items() if name.endswith(end)), (e,))

    return size_of


TENSORS = Tensors(
    name=FAMILIES["qwen2_vl"],
    rules=RULES,
    embedding_mm=EMBEDDING_MM,
    embedding_hf=EMBEDDING_HF,
    output_mm=OUTPUT_MM,
    output_hf=OUTPUT_HF,
    vision="visual.",
    projector="visual.merger.",
    renamed=(("model.language_model.", "model."), ("model.visual.", "visual.")),
    computed=re.compile(r"rotary_(pos_)?emb\.inv_freq$"),
    sizes=sizes,
)
