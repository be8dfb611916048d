"""The sizes of a Qwen2-VL model, from its config.json.

Two forms of config.json are read: the published one, with the text model's sizes at the
top level, and the one transformers 5 saves, with them under `text_config`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindtune.errors import UserError
from mindtune.files import read_json

# Far above any Qwen2-VL (80 layers, 29,568 rows, 152,064 tokens): more is a slip, or would fill memory
# with names before anything is looked at.
MOST_LAYERS, MOST = 1000, 10**7


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a Qwen2-VL model (numbers of elements unless said otherwise)."""

    llm_layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    vit_layers: int
    vit_hidden: int
    vit_ffn: int
    vit_heads: int
    merged_hidden: int  # width of spatial_merge_size ** 2 patches side by side
    projector_out: int
    patch_shape: tuple[int, int, int, int]  # channels, frames, height, width

    @property
    def kv_rows(self) -> int:
        """Rows of the key (or the value) projection of the whole model."""
        return self.kv_heads * self.head_dim


def _number(section: dict[str, Any], key: str, where: str, most: int = MOST) -> int:
    value = section.get(key)
    if value is None:
        raise UserError(f"{where} lacks {key}, without which the tensors' shapes are unknown")
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise UserError(f"{where}: {key} is {value!r}; a whole number above 0 is needed")
    if value > most:
        raise UserError(f"{where}: {key} is {value}; at most {most} can be right")
    return value


def model_shape(config: dict[str, Any], where: str = "config.json") -> ModelShape:
    """The sizes in a Qwen2-VL config.json (already parsed), flat or with `text_config`.

    `where` names the file in messages. Raises UserError for another model, and for sizes
    that are missing or do not fit one another.
    """
    if not isinstance(config, dict):
        raise UserError(f"{where} is not a JSON object")
    kind = config.get("model_type")
    if kind != "qwen2_vl":
        raise UserError(f"{where}: model_type is {kind!r}; only 'qwen2_vl' can be converted")
    nested = config.get("text_config")
    text = {**config, **nested} if isinstance(nested, dict) else config
    vision = config.get("vision_config")
    if not isinstance(vision, dict):
        raise UserError(f"{where} lacks vision_config, without which the vision shapes are unknown")
    in_vision = f"{where}, vision_config"
    hidden = _number(text, "hidden_size", where)
    heads = _number(text, "num_attention_heads", where)
    kv_heads = _number({"num_key_value_heads": heads, **text}, "num_key_value_heads", where)
    if heads % kv_heads:
        raise UserError(
            f"{where}: {heads} attention heads cannot be shared by {kv_heads} key-value heads"
        )
    if hidden % heads and text.get("head_dim") is None:
        raise UserError(f"{where}: hidden_size {hidden} is not a multiple of {heads} heads")
    embed = _number({"embed_dim": 1280, **vision}, "embed_dim", in_vision)
    vit_heads = _number({"num_heads": 16, **vision}, "num_heads", in_vision)
    if embed % vit_heads:
        raise UserError(f"{in_vision}: embed_dim {embed} is not a multiple of {vit_heads} heads")
    ratio = vision.get("mlp_ratio", 4)
    if not isinstance(ratio, int | float) or not 1 <= embed * ratio <= MOST:
        raise UserError(f"{in_vision}: mlp_ratio is {ratio!r}; a number above 0 is needed")
    merge = _number({"spatial_merge_size": 2, **vision}, "spatial_merge_size", in_vision)
    patch = _number({"patch_size": 14, **vision}, "patch_size", in_vision)
    frames = _number({"temporal_patch_size": 2, **vision}, "temporal_patch_size", in_vision)
    channels = _number(
        {**vision, "in_channels": vision.get("in_channels", vision.get("in_chans", 3))},
        "in_channels",
        in_vision,
    )
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    return ModelShape(
        llm_layers=_number(text, "num_hidden_layers", where, MOST_LAYERS),
        hidden=hidden,
        ffn=_number(text, "intermediate_size", where),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=_number(
            {**text, "head_dim": text.get("head_dim") or hidden // heads}, "head_dim", where
        ),
        vocab=_number(text, "vocab_size", where),
        tied=bool(tied),
        vit_layers=_number(vision, "depth", in_vision, MOST_LAYERS),
        vit_hidden=embed,
        vit_ffn=int(embed * ratio),
        vit_heads=vit_heads,
        merged_hidden=embed * merge * merge,
        projector_out=_number({"hidden_size": hidden, **vision}, "hidden_size", in_vision),
        patch_shape=(channels, frames, patch, patch),
    )


def read_config(hf_dir: str | Path) -> dict[str, Any]:
    """config.json of a Hugging Face directory, parsed; UserError if it is not there or broken."""
    path = Path(hf_dir) / "config.json"
    if not Path(hf_dir).is_dir():
        raise UserError(f"{hf_dir} is not a directory; a Hugging Face checkpoint is needed there")
    if not path.exists():
        raise UserError(f"{path} does not exist; a Hugging Face checkpoint has one")
    config = read_json(path)
    if not isinstance(config, dict):
        raise UserError(f"{path} is not a JSON object")
    return config
