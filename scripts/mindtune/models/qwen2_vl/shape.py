"""The sizes of a Qwen2-VL model, from its config.json.

Two forms of config.json are read: the published one, with the text model's sizes at the
top level, and the one transformers 5 saves, with them under `text_config`.
"""

from typing import Any

from mindtune.errors import UserError
from mindtune.models.shape import MOST, MOST_LAYERS, ModelShape, number


def shape(config: dict[str, Any], where: str) -> ModelShape:
    """The sizes in a config.json, flat or with `text_config`; see `model_shape`."""
    nested = config.get("text_config")
    text = {**config, **nested} if isinstance(nested, dict) else config
    vision = config.get("vision_config")
    if not isinstance(vision, dict):
        raise UserError(f"{where} lacks vision_config, without which the vision shapes are unknown")
    in_vision = f"{where}, vision_config"
    hidden = number(text, "hidden_size", where)
    heads = number(text, "num_attention_heads", where)
    kv_heads = number({"num_key_value_heads": heads, **text}, "num_key_value_heads", where)
    if heads % kv_heads:
        raise UserError(
            f"{where}: {heads} attention heads cannot be shared by {kv_heads} key-value heads"
        )
    if hidden % heads and text.get("head_dim") is None:
        raise UserError(f"{where}: hidden_size {hidden} is not a multiple of {heads} heads")
    embed = number({"embed_dim": 1280, **vision}, "embed_dim", in_vision)
    vit_heads = number({"num_heads": 16, **vision}, "num_heads", in_vision)
    if embed % vit_heads:
        raise UserError(f"{in_vision}: embed_dim {embed} is not a multiple of {vit_heads} heads")
    ratio = vision.get("mlp_ratio", 4)
    if not isinstance(ratio, int | float) or not 1 <= embed * ratio <= MOST:
        raise UserError(f"{in_vision}: mlp_ratio is {ratio!r}; a number above 0 is needed")
    merge = number({"spatial_merge_size": 2, **vision}, "spatial_merge_size", in_vision)
    patch = number({"patch_size": 14, **vision}, "patch_size", in_vision)
    frames = number({"temporal_patch_size": 2, **vision}, "temporal_patch_size", in_vision)
    channels = number(
        {**vision, "in_channels": vision.get("in_channels", vision.get("in_chans", 3))},
        "in_channels",
        in_vision,
    )
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    return ModelShape(
        model_type="qwen2_vl",
        llm_layers=number(text, "num_hidden_layers", where, MOST_LAYERS),
        hidden=hidden,
        ffn=number(text, "intermediate_size", where),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=number(
            {**text, "head_dim": text.get("head_dim") or hidden // heads}, "head_dim", where
        ),
        vocab=number(text, "vocab_size", where),
        tied=bool(tied),
        vit_layers=number(vision, "depth", in_vision, MOST_LAYERS),
        vit_hidden=embed,
        vit_ffn=int(embed * ratio),
        vit_heads=vit_heads,
        merged_hidden=embed * merge * merge,
        projector_out=number({"hidden_size": hidden, **vision}, "hidden_size", in_vision),
        patch_shape=(channels, frames, patch, patch),
    )
