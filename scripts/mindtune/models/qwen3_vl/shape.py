"""The sizes of a Qwen3-VL model, from its config.json."""

from dataclasses import dataclass
from typing import Any

from mindtune.errors import UserError
from mindtune.models.shape import (
    ModelShape,
    language_sizes,
    number,
    vision_section,
    vision_sizes,
)

# Layers of the vision encoder whose output enters the decoder as well; so many have all published sizes.
DEEP = 3
# What transformers takes where config.json says nothing.
VISION = {"hidden_size": 1152, "patch_size": 16}


@dataclass(frozen=True, slots=True)
class Qwen3VLShape(ModelShape):
    """positions: the vision encoder's learned positions."""

    positions: int


def shape(config: dict[str, Any], where: str) -> ModelShape:
    """See `model_shape`."""
    given, in_vision = vision_section(config, where)
    vision = {**VISION, **given}
    text = config.get("text_config")
    text = {"head_dim": 128, **text} if isinstance(text, dict) else {}
    language = language_sizes({**config, "text_config": text}, where)
    if text.get("attention_bias"):
        raise UserError(f"{where}: attention_bias is true; Qwen3-VL's attention has no biases")
    deep = vision.get("deepstack_visual_indexes", [8, 16, 24])
    sizes = vision_sizes(vision, in_vision, "hidden_size")
    if not _are_layers(deep, sizes["vit_layers"]):
        raise UserError(
            f"{in_vision}: deepstack_visual_indexes is {deep!r}; {DEEP} layers of the vision encoder, "
            f"each below {sizes['vit_layers']}, are needed"
        )
    out = number({"out_hidden_size": 3584, **vision}, "out_hidden_size", in_vision)
    if out != language["hidden"]:
        raise UserError(
            f"{in_vision}: out_hidden_size is {out}, but hidden_size in text_config "
            f"{language['hidden']}; they have to be equal"
        )
    return Qwen3VLShape(
        model_type="qwen3_vl",
        **language,
        **sizes,
        vit_ffn=number(vision, "intermediate_size", in_vision),
        projector_out=out,
        positions=number(
            {"num_position_embeddings": 2304, **vision}, "num_position_embeddings", in_vision
        ),
    )


def _are_layers(value: Any, layers: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == DEEP
        and all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < layers for n in value)
        and len(set(value)) == DEEP
    )
