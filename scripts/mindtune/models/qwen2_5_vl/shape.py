"""The sizes of a Qwen2.5-VL model, from its config.json."""

from typing import Any

from mindtune.models.shape import (
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
    return ModelShape(
        model_type="qwen2_5_vl",
        **language,
        **vision_sizes(vision, in_vision, "hidden_size"),
        vit_ffn=number(vision, "intermediate_size", in_vision),
        projector_out=number(
            {"out_hidden_size": language["hidden"], **vision}, "out_hidden_size", in_vision
        ),
    )
