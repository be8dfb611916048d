"""The sizes of a Qwen2-VL model, from its config.json."""

from typing import Any

from mindtune.errors import UserError
from mindtune.models.shape import (
    MOST,
    ModelShape,
    language_sizes,
    number,
    vision_section,
    vision_sizes,
)


def shape(config: dict[str, Any], where: str) -> ModelShape:
    """See `model_shape`."""
    vision, in_vision = vision_section(config, where)
    language = language_sizes(config, where)
    sizes = vision_sizes(vision, in_vision, "embed_dim")
    embed, ratio = sizes["vit_hidden"], vision.get("mlp_ratio", 4)
    if not isinstance(ratio, int | float) or not 1 <= embed * ratio <= MOST:
        raise UserError(f"{in_vision}: mlp_ratio is {ratio!r}; a number above 0 is needed")
    return ModelShape(
        model_type="qwen2_vl",
        **language,
        **sizes,
        vit_ffn=int(embed * ratio),
        projector_out=number(
            {"hidden_size": language["hidden"], **vision}, "hidden_size", in_vision
        ),
    )
