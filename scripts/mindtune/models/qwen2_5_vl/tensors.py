"""The names of Qwen2.5-VL's tensors in both worlds, and their shapes.

The language model and the projector are Qwen2-VL's. In the vision encoder norms have no bias, and the MLP
is gated, with a bias: MindSpeed-MM keeps gate and up together, as in the language model.
"""

from collections.abc import Callable
from dataclasses import replace

from mindtune.models import FAMILIES
from mindtune.models.qwen2_vl import tensors as qwen2_vl
from mindtune.models.shape import ModelShape
from mindtune.models.tensors import Fuse, Part, Rule, Split

_BLOCK = "visual.blocks.{n}."
_MLP = "image_encoder.encoder.blocks.layers.{n}.mlp."


def _differs(rule: Rule) -> bool:
    """Whether a rule of Qwen2-VL's is none of these models."""
    vision = rule.part in (Part.VIT_LAYER, Part.PROJECTOR)
    return vision and (rule.mm.startswith(_MLP) or rule.mm.endswith("layernorm.bias"))


RULES: tuple[Rule, ...] = (
    *(rule for rule in qwen2_vl.RULES if not _differs(rule)),
    *(
        Rule(
            Part.VIT_LAYER,
            f"{_MLP}linear_fc1.{kind}",
            (f"{_BLOCK}mlp.gate_proj.{kind}", f"{_BLOCK}mlp.up_proj.{kind}"),
            Fuse.GATE_UP,
            Split.GATE_UP,
        )
        for kind in ("weight", "bias")
    ),
    *(
        Rule(
            Part.VIT_LAYER,
            f"{_MLP}linear_fc2.{kind}",
            (f"{_BLOCK}mlp.down_proj.{kind}",),
            Fuse.SAME,
            split,
        )
        for kind, split in (("weight", Split.COLUMNS), ("bias", Split.COPY))
    ),
)


def sizes(shape: ModelShape) -> Callable[[str], tuple[int, ...]]:
    """The shape of each published tensor, by its name."""
    others, ffn, width = qwen2_vl.sizes(shape), shape.vit_ffn, shape.vit_hidden
    in_block = {
        "mlp.gate_proj.weight": (ffn, width),
        "mlp.gate_proj.bias": (ffn,),
        "mlp.up_proj.weight": (ffn, width),
        "mlp.up_proj.bias": (ffn,),
        "mlp.down_proj.weight": (width, ffn),
    }

    def size_of(name: str) -> tuple[int, ...]:
        if name.startswith("visual.blocks."):
            for end, size in in_block.items():
                if name.endswith(end):
                    return size
        return others(name)

    return size_of


TENSORS = replace(qwen2_vl.TENSORS, name=FAMILIES["qwen2_5_vl"], rules=RULES, sizes=sizes)
