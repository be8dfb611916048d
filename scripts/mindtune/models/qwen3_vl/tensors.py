"""The names of Qwen3-VL's tensors in both worlds, and their shapes.

MindSpeed-MM 2.0.0 does not know the model: the Megatron names are this project's, in the framework's style,
for checkpoints of the `hf` engine on one rank. What Qwen2-VL has as well is called as there.
"""

import re
from collections.abc import Callable
from dataclasses import replace

from mindtune.models import FAMILIES
from mindtune.models.qwen2_vl import tensors as qwen2_vl
from mindtune.models.qwen3_vl.shape import DEEP, Qwen3VLShape
from mindtune.models.tensors import Part, Rule, Tensors

VISION, LANGUAGE = "model.visual.", "model.language_model."
MERGER, DEEP_MERGER = f"{VISION}merger.", f"{VISION}deepstack_merger_list."
_ENCODER = "image_encoder.encoder."
_PROJECTOR, _DEEP_PROJECTOR = "image_encoder.projector.", "image_encoder.deepstack_projectors."
# Beginnings of Qwen2-VL's published names, or what is within them -> Qwen3-VL's.
_BEGINNINGS = {"visual.": VISION, "model.": LANGUAGE}
_WITHIN = {
    f"{MERGER}ln_q.": f"{MERGER}norm.",
    f"{MERGER}mlp.0.": f"{MERGER}linear_fc1.",
    f"{MERGER}mlp.2.": f"{MERGER}linear_fc2.",
    ".mlp.fc": ".mlp.linear_fc",
}
_ATTENTION_BIAS = "text_decoder.decoder.layers.{n}.self_attention.linear_qkv.bias"


def _name(name: str) -> str:
    """Qwen3-VL's published name of what Qwen2-VL has as well."""
    for theirs, own in _BEGINNINGS.items():
        if name.startswith(theirs):
            name = own + name.removeprefix(theirs)
            break
    for theirs, own in _WITHIN.items():
        name = name.replace(theirs, own)
    return name


_SHARED = tuple(
    replace(rule, hf=tuple(map(_name, rule.hf)))
    for rule in qwen2_vl.RULES
    if rule.mm != _ATTENTION_BIAS
)


def _deep(number: int, rule: Rule) -> Rule:
    """A rule of the projector for one of those whose output enters a layer of the decoder."""
    return replace(
        rule,
        mm=rule.mm.replace(_PROJECTOR, f"{_DEEP_PROJECTOR}{number}."),
        hf=tuple(name.replace(MERGER, f"{DEEP_MERGER}{number}.") for name in rule.hf),
    )


RULES: tuple[Rule, ...] = (
    *_SHARED,
    Rule(Part.PATCHES, f"{_ENCODER}patch_embed.proj.bias", (f"{VISION}patch_embed.proj.bias",)),
    Rule(Part.PATCHES, f"{_ENCODER}pos_embed.weight", (f"{VISION}pos_embed.weight",)),
    *(
        _deep(number, rule)
        for number in range(DEEP)
        for rule in _SHARED
        if rule.part is Part.PROJECTOR
    ),
    *(
        Rule(
            Part.LLM_LAYER,
            f"text_decoder.decoder.layers.{{n}}.self_attention.{which}_layernorm.weight",
            (f"{LANGUAGE}layers.{{n}}.self_attn.{which}_norm.weight",),
        )
        for which in "qk"
    ),
)


def sizes(shape: Qwen3VLShape) -> Callable[[str], tuple[int, ...]]:
    """The shape of each published tensor, by its name."""
    h, e, m = shape.hidden, shape.vit_hidden, shape.merged_hidden
    q, kv = shape.heads * shape.head_dim, shape.kv_rows
    language = {
        "embed_tokens.weight": (shape.vocab, h),
        "lm_head.weight": (shape.vocab, h),
        "q_proj.weight": (q, h),
        "k_proj.weight": (kv, h),
        "v_proj.weight": (kv, h),
        "o_proj.weight": (h, q),
        "q_norm.weight": (shape.head_dim,),
        "k_norm.weight": (shape.head_dim,),
        "gate_proj.weight": (shape.ffn, h),
        "up_proj.weight": (shape.ffn, h),
        "down_proj.weight": (h, shape.ffn),
    }
    encoder = {
        "patch_embed.proj.weight": (e, *shape.patch_shape),
        "pos_embed.weight": (shape.positions, e),
        "attn.qkv.weight": (3 * e, e),
        "attn.qkv.bias": (3 * e,),
        "attn.proj.weight": (e, e),
        "linear_fc1.weight": (shape.vit_ffn, e),
        "linear_fc1.bias": (shape.vit_ffn,),
        "linear_fc2.weight": (e, shape.vit_ffn),
    }
    projector = {
        "linear_fc1.weight": (m, m),
        "linear_fc1.bias": (m,),
        "linear_fc2.weight": (shape.projector_out, m),
        "linear_fc2.bias": (shape.projector_out,),
    }
    # Of a part: its tensors by their endings, and the width of the norms and biases that are left.
    parts = {
        MERGER: (projector, e),
        DEEP_MERGER: (projector, m),  # these norm what is merged
        VISION: (encoder, e),
        "": (language, h),
    }

    def size_of(name: str) -> tuple[int, ...]:
        by_ending, width = next(parts[begin] for begin in parts if name.startswith(begin))
        return next((size for end, size in by_ending.items() if name.endswith(end)), (width,))

    return size_of


TENSORS = Tensors(
    name=FAMILIES["qwen3_vl"],
    rules=RULES,
    embedding_mm=qwen2_vl.EMBEDDING_MM,
    embedding_hf=_name(qwen2_vl.EMBEDDING_HF),
    output_mm=qwen2_vl.OUTPUT_MM,
    output_hf=qwen2_vl.OUTPUT_HF,
    vision=VISION,
    projector=(MERGER, DEEP_MERGER),
    renamed=(),
    computed=re.compile(r"rotary_(pos_)?emb\.inv_freq$"),
    sizes=sizes,
    one_rank=True,
)
