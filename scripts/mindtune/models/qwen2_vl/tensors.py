"""The names of Qwen2-VL's tensors in both worlds, and what becomes of each on the way.

Hugging Face names are the published ones (`model.layers.*`, `visual.*`, `lm_head.weight`);
Megatron names those of MindSpeed-MM 2.0.0's Qwen2-VL (`text_decoder.*`, `image_encoder.*`).
`RULES` is the whole mapping; the functions below carry it out in either direction on views
(see `views`). The effect on bytes follows mm-convert of MindSpeed-MM 2.0.0, against which
the conformance tests compare every rank file.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from mindtune.formats.views import View, stack_columns, stack_rows, take_columns, take_rows
from mindtune.models.qwen2_vl.shape import ModelShape


class Fuse(Enum):
    """How the Hugging Face tensors of a rule make its Megatron tensor (G key-value heads)."""

    SAME = auto()  # one tensor, unchanged
    QKV = auto()  # q, k, v -> per group g: [query heads of g][key head g][value head g]
    GATE_UP = auto()  # gate, up -> [all of gate][all of up]
    VISION_QKV = auto()  # [all q][all k][all v] -> per head h: [q h][k h][v h]


class Split(Enum):
    """How tensor parallelism cuts a Megatron tensor."""

    COPY = auto()  # every rank holds it whole
    ROWS = auto()  # dimension 0, evenly
    COLUMNS = auto()  # dimension 1, evenly
    GATE_UP = auto()  # the gate half and the up half are each cut: [gate of r][up of r]


class Part(Enum):
    """The part of the model a tensor belongs to; it decides the pipeline stage."""

    PATCH_EMBED = auto()
    VIT_LAYER = auto()
    PROJECTOR = auto()
    EMBEDDING = auto()
    LLM_LAYER = auto()
    FINAL_NORM = auto()
    OUTPUT = auto()


@dataclass(frozen=True, slots=True)
class Rule:
    """One Megatron tensor and the Hugging Face tensors it is made of; `{n}` is a layer number."""

    part: Part
    mm: str
    hf: tuple[str, ...]
    fuse: Fuse = Fuse.SAME
    split: Split = Split.COPY


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
        Part.PATCH_EMBED,
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


# --- Which tensors a model, and a chunk of it, has ---------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """A Megatron tensor of a model: its rule, and its layer number in the whole model if any."""

    rule: Rule
    layer: int | None

    @property
    def mm(self) -> str:
        """Its Megatron name, layers numbered through the whole model."""
        return self.rule.mm.format(n=self.layer)

    @property
    def hf(self) -> tuple[str, ...]:
        """The Hugging Face names it is made of."""
        return tuple(name.format(n=self.layer) for name in self.rule.hf)


def entries(llm_layers: int, vit_layers: int, *, output: bool) -> list[Entry]:
    """All Megatron tensors of a model, in the order it runs; `output`: with an output layer."""
    counts = {Part.VIT_LAYER: vit_layers, Part.LLM_LAYER: llm_layers, Part.OUTPUT: int(output)}
    result = []
    for part in Part:
        rules = [rule for rule in RULES if rule.part is part]
        layered = part in (Part.VIT_LAYER, Part.LLM_LAYER)
        for n in range(counts.get(part, 1)):
            result += [Entry(rule, n if layered else None) for rule in rules]
    return result


def entries_of_chunk(
    chunks: Sequence[tuple[int, int]], index: int, *, output: bool
) -> Iterator[tuple[str, Entry]]:
    """(name in the rank file, entry) of each tensor of chunk `index` of a layout.

    `chunks` are the (vision, language) layer counts of `ParallelLayout.chunks`. Layers are
    numbered from 0 within a chunk. As mm-convert places them: patch embedding on the first
    chunk, projector on the last with vision layers, embedding on the first with language
    layers, final norm and output layer on the last chunk.
    """
    with_vit = [n for n, (vit, _) in enumerate(chunks) if vit]
    with_llm = [n for n, (_, llm) in enumerate(chunks) if llm]
    last = len(chunks) - 1
    home = {
        Part.PATCH_EMBED: 0,
        Part.PROJECTOR: with_vit[-1] if with_vit else 0,
        Part.EMBEDDING: with_llm[0] if with_llm else last,
        Part.FINAL_NORM: last,
        Part.OUTPUT: last,
    }
    vit_start = sum(vit for vit, _ in chunks[:index])
    llm_start = sum(llm for _, llm in chunks[:index])
    starts = {Part.VIT_LAYER: vit_start, Part.LLM_LAYER: llm_start}
    counts = {Part.VIT_LAYER: chunks[index][0], Part.LLM_LAYER: chunks[index][1]}
    for part in Part:
        rules = [rule for rule in RULES if rule.part is part]
        if part in starts:
            for n in range(counts[part]):
                for rule in rules:
                    yield rule.mm.format(n=n), Entry(rule, starts[part] + n)
        elif home[part] == index and (output or part is not Part.OUTPUT):
            for rule in rules:
                yield rule.mm, Entry(rule, None)


def hf_shapes(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Published name -> shape of every tensor of a model, embedding first, vision last."""
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

    def shape_of(name: str) -> tuple[int, ...]:
        # What no ending names is a norm or a bias as wide as the vision model.
        return next((s for end, s in by_ending.items() if name.endswith(end)), (e,))

    found = entries(shape.llm_layers, shape.vit_layers, output=not shape.tied)
    language = [name for entry in found for name in entry.hf if not name.startswith("visual.")]
    vision = [name for entry in found for name in entry.hf if name.startswith("visual.")]
    return {name: shape_of(name) for name in (*language, *vision)}


# --- What becomes of the bytes -----------------------------------------------------------


def _blocks(view: View, sizes: Sequence[int]) -> list[View]:
    """The view cut along dimension 0 into pieces of the given numbers of rows."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(take_rows(view, start, start + size))
        start += size
    return pieces


def _transposed(view: View, outer: int, inner: int, sizes: Sequence[int]) -> list[list[View]]:
    """`outer` times `inner` blocks, block i of each group having sizes[i] rows, by inner index."""
    blocks = _blocks(view, list(sizes) * outer)
    return [blocks[n::inner] for n in range(inner)]


def fuse(rule: Rule, parts: Sequence[View], shape: ModelShape) -> View:
    """The Megatron tensor (whole, all tensor ranks) made of its Hugging Face tensors."""
    if rule.fuse is Fuse.GATE_UP:
        return stack_rows(parts)
    if rule.fuse is Fuse.QKV:
        groups = shape.kv_heads
        by_group = [_blocks(part, [part.rows // groups] * groups) for part in parts]
        return stack_rows([block for group in zip(*by_group, strict=True) for block in group])
    if rule.fuse is Fuse.VISION_QKV:
        heads = shape.vit_heads
        size = parts[0].rows // 3 // heads
        by_head = _transposed(parts[0], 3, heads, [size] * heads)
        return stack_rows([block for head in by_head for block in head])
    return parts[0]


def unfuse(rule: Rule, whole: View, shape: ModelShape) -> list[View]:
    """The Hugging Face tensors of a whole Megatron tensor; the inverse of `fuse`."""
    if rule.fuse is Fuse.GATE_UP:
        return _blocks(whole, [whole.rows // 2] * 2)
    if rule.fuse is Fuse.QKV:
        queries = shape.heads // shape.kv_heads * shape.head_dim
        sizes = [queries, shape.head_dim, shape.head_dim]
        return [stack_rows(blocks) for blocks in _transposed(whole, shape.kv_heads, 3, sizes)]
    if rule.fuse is Fuse.VISION_QKV:
        size = whole.rows // 3 // shape.vit_heads
        kinds = _transposed(whole, shape.vit_heads, 3, [size] * 3)
        return [stack_rows([block for kind in kinds for block in kind])]
    return [whole]


def shard(split: Split, whole: View, tp_size: int, tp_rank: int) -> View:
    """What tensor rank `tp_rank` of `tp_size` holds of a whole Megatron tensor."""

    def cut(take: Callable[[View, int, int], View], view: View, length: int) -> View:
        size = length // tp_size
        return take(view, tp_rank * size, (tp_rank + 1) * size)

    if tp_size == 1 or split is Split.COPY:
        return whole
    if split is Split.COLUMNS:
        return cut(take_columns, whole, whole.shape[1])
    if split is Split.GATE_UP:
        halves = _blocks(whole, [whole.rows // 2] * 2)
        return stack_rows([cut(take_rows, half, half.rows) for half in halves])
    return cut(take_rows, whole, whole.rows)


def unshard(split: Split, shards: Sequence[View]) -> View:
    """The whole Megatron tensor from what all tensor ranks hold; the inverse of `shard`."""
    if len(shards) == 1 or split is Split.COPY:
        return shards[0]
    if split is Split.COLUMNS:
        return stack_columns(shards)
    if split is Split.GATE_UP:
        halves = [_blocks(view, [view.rows // 2] * 2) for view in shards]
        return stack_rows([half[n] for n in (0, 1) for half in halves])
    return stack_rows(shards)
