"""The sizes of a model, from its config.json: what all families have in common."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindtune.errors import UserError
from mindtune.files import read_json
from mindtune.models import family, room

# Far above any model (80 layers, 29,568 rows, 152,064 tokens): more is a slip, or would fill memory
# with names before anything is looked at.
MOST_LAYERS, MOST = 1000, 10**7


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a model of some family (numbers of elements unless said otherwise)."""

    model_type: str
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


def number(section: dict[str, Any], key: str, where: str, most: int = MOST) -> int:
    value = section.get(key)
    if value is None:
        raise UserError(f"{where} lacks {key}, without which the tensors' shapes are unknown")
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise UserError(f"{where}: {key} is {value!r}; a whole number above 0 is needed")
    if value > most:
        raise UserError(f"{where}: {key} is {value}; at most {most} can be right")
    return value


def language_sizes(config: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields of `ModelShape` of the language model, and `tied`: families differ elsewhere.

    Two forms of config.json are read: the published one, with these sizes at the top level, and the
    one transformers 5 saves, with them under `text_config`.
    """
    nested = config.get("text_config")
    text = {**config, **nested} if isinstance(nested, dict) else config
    hidden = number(text, "hidden_size", where)
    heads = number(text, "num_attention_heads", where)
    kv_heads = number({"num_key_value_heads": heads, **text}, "num_key_value_heads", where)
    if heads % kv_heads:
        raise UserError(
            f"{where}: {heads} attention heads cannot be shared by {kv_heads} key-value heads"
        )
    if hidden % heads and text.get("head_dim") is None:
        raise UserError(f"{where}: hidden_size {hidden} is not a multiple of {heads} heads")
    head_dim = text.get("head_dim") or hidden // heads
    return {
        "llm_layers": number(text, "num_hidden_layers", where, MOST_LAYERS),
        "hidden": hidden,
        "ffn": number(text, "intermediate_size", where),
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": number({**text, "head_dim": head_dim}, "head_dim", where),
        "vocab": number(text, "vocab_size", where),
        "tied": bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
    }


def vision_section(config: dict[str, Any], where: str) -> tuple[dict[str, Any], str]:
    """vision_config, and what sentences call it."""
    vision = config.get("vision_config")
    if not isinstance(vision, dict):
        raise UserError(f"{where} lacks vision_config, without which the vision shapes are unknown")
    return vision, f"{where}, vision_config"


def vision_sizes(vision: dict[str, Any], where: str, width: str) -> dict[str, Any]:
    """The fields of `ModelShape` that families share in vision_config.

    width: the key of the vision layers' width.
    """
    embed = number({width: 1280, **vision}, width, where)
    heads = number({"num_heads": 16, **vision}, "num_heads", where)
    if embed % heads:
        raise UserError(f"{where}: {width} {embed} is not a multiple of {heads} heads")
    merge = number({"spatial_merge_size": 2, **vision}, "spatial_merge_size", where)
    patch = number({"patch_size": 14, **vision}, "patch_size", where)
    frames = number({"temporal_patch_size": 2, **vision}, "temporal_patch_size", where)
    channels = vision.get("in_channels", vision.get("in_chans", 3))
    return {
        "vit_layers": number(vision, "depth", where, MOST_LAYERS),
        "vit_hidden": embed,
        "vit_heads": heads,
        "merged_hidden": embed * merge * merge,
        "patch_shape": (
            number({"in_channels": channels}, "in_channels", where),
            frames,
            patch,
            patch,
        ),
    }


def model_shape(config: dict[str, Any], where: str = "config.json") -> ModelShape:
    """The sizes in a config.json (already parsed), by its family.

    `where` names the file in messages. Raises UserError for a model of no family here, and for sizes
    that are missing or do not fit one another.
    """
    if not isinstance(config, dict):
        raise UserError(f"{where} is not a JSON object")
    return room(family(config, where), "shape").shape(config, where)


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
