"""What MindSpeed-MM 2.0.0 ships for Qwen2.5-VL: files to train 7B, which serve for every size.

It ships none for answering, so that Qwen2-VL's are taken. They hold the same blocks, and `fill` sets all in
which the models differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mindtune.models.qwen2_vl.mindspeed import FRAMEWORK as QWEN2_VL
from mindtune.models.shape import ModelShape

# transformers' defaults, which Qwen's config.json repeat.
WINDOW = {"window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]}


def fill(
    filled: dict[str, Any],
    config: Mapping[str, Any],
    shape: ModelShape,
    vit_layers: Sequence[int],
    llm_layers: Sequence[int],
) -> None:
    """See `Framework.fill`."""
    QWEN2_VL.fill(filled, config, shape, vit_layers, llm_layers)
    vision = {**WINDOW, **config["vision_config"]}
    filled["image_encoder"]["vision_encoder"].update(
        intermediate_size=shape.vit_ffn,
        gated_linear_unit=True,
        activation_func="silu",
        normalization="RMSNorm",
        window_attn_size=vision["window_size"],
        fullatt_block_indexes=list(vision["fullatt_block_indexes"]),
        tokens_per_second=vision.get("tokens_per_second", 2),
    )
    filled["image_encoder"]["vision_projector"]["normalization"] = "RMSNorm"
    filled["text_decoder"]["model_id"] = "qwen2_5_lm"


FRAMEWORK = replace(
    QWEN2_VL,
    examples=Path("examples", "qwen2.5vl"),
    files={
        "data": "data_{size}.json",
        "model": "model_{size}.json",
        "inference": "../qwen2vl/inference_qwen2vl_{size}.json",
    },
    size=lambda shape: "7b",
    converter="Qwen2_5_VLConverter",
    fill=fill,
    # Its attention of the vision encoder then takes pictures' bounds in every layer, and no windows
    # (examples/qwen2vl/dot_product_attention.py), although the patches are in the windows' order.
    flash_attention=False,
    # Qwen2_5_VLConverter writes nothing on the way back, and needs another transformers on the way there;
    # the inference pipeline gives the encoder pixels in a form in which it finds no windows.
    tools=False,
    # Its transformers knows no Qwen2.5-VL, whose tokenizer and image processor are Qwen2-VL's.
    reads={
        "config.json": {"model_type": "qwen2_vl"},
        "preprocessor_config.json": {
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2VLProcessor",
        },
    },
)
