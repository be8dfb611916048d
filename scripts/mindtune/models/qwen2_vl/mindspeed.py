"""What MindSpeed-MM 2.0.0 ships for Qwen2-VL: files for 2B, 7B and 72B."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mindtune.models.mindspeed import Framework
from mindtune.models.shape import ModelShape

LAYERS_OF_72B = 80
TOKENS = {"image_token_id": 151655, "video_token_id": 151656, "vision_start_token_id": 151652}


def size(shape: ModelShape) -> str:
    return "2b" if shape.tied else "72b" if shape.llm_layers >= LAYERS_OF_72B else "7b"


def fill(
    filled: dict[str, Any],
    config: Mapping[str, Any],
    shape: ModelShape,
    vit_layers: Sequence[int],
    llm_layers: Sequence[int],
) -> None:
    """See `Framework.fill`."""
    text = {**config, **(config.get("text_config") or {})}  # a section of transformers 5's
    scaling = text.get("rope_scaling") or text.get("rope_parameters") or {}
    channels, frames, patch, _ = shape.patch_shape
    filled["image_encoder"]["vision_encoder"].update(
        num_layers=shape.vit_layers,
        hidden_size=shape.vit_hidden,
        ffn_hidden_size=shape.vit_ffn,
        llm_hidden_size=shape.hidden,
        num_attention_heads=shape.vit_heads,
        in_channels=channels,
        temporal_patch_size=frames,
        patch_size=patch,
        spatial_merge_size=config["vision_config"].get("spatial_merge_size", 2),
        pipeline_num_layers=vit_layers,
    )
    filled["image_encoder"]["vision_projector"].update(
        input_size=shape.vit_hidden,
        hidden_size=shape.projector_out,
        ffn_hidden_size=shape.merged_hidden,
    )
    filled["text_decoder"].update(
        num_layers=shape.llm_layers,
        pipeline_num_layers=llm_layers,
        hidden_size=shape.hidden,
        ffn_hidden_size=shape.ffn,
        num_attention_heads=shape.heads,
        num_query_groups=shape.kv_heads,
        kv_channels=shape.head_dim,
        vocab_size=shape.vocab,
        untie_embeddings_and_output_weights=not shape.tied,
        max_position_embeddings=text.get("max_position_embeddings", 32768),
        rope_theta=text.get("rope_theta") or scaling.get("rope_theta", 1000000.0),
        mrope_section=scaling["mrope_section"],
        layernorm_epsilon=text.get("rms_norm_eps", 1e-6),
    )
    filled["img_context_token_id"] = config.get("image_token_id", TOKENS["image_token_id"])
    for name in ("video_token_id", "vision_start_token_id"):
        if name in filled:
            filled[name] = config.get(name, TOKENS[name])


FRAMEWORK = Framework(
    examples=Path("examples", "qwen2vl"),
    files={
        "data": "data_{size}.json",
        "model": "model_{size}.json",
        "inference": "inference_qwen2vl_{size}.json",
    },
    size=size,
    tokens=TOKENS,
    converter="Qwen2VLConverter",
    picture_plugin="Qwen2vlPlugin",
    fill=fill,
)
