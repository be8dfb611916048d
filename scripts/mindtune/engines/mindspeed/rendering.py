"""The framework's JSON files for a run: its shipped ones, with our values in their places.

What the shipped files of the 2B, 7B and 72B models hold beside sizes and paths (activation
functions, fused operators, recomputation) is kept. Every size comes from the model's config.json
and every layer list from the layout, so that a file can't disagree with the checkpoint.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mindtune.checkpoint.layout import ParallelLayout
from mindtune.errors import UserError
from mindtune.models.shape import ModelShape, model_shape

EXAMPLES = Path("examples", "qwen2vl")
LAYERS_OF_72B = 80
# Token ids of the published models, which config.json may leave out.
TOKENS = {"image_token_id": 151655, "video_token_id": 151656, "vision_start_token_id": 151652}

# Whatever could make an answer another than the likeliest one, switched off.
GREEDY = {
    "do_sample": False, "temperature": 0, "num_beams": 1, "num_return_sequences": 1,
    "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0, "min_new_tokens": None,
    "bad_words_ids": None, "suppress_tokens": None, "begin_suppress_tokens": None,
    "sequence_bias": None, "forced_bos_token_id": None, "forced_eos_token_id": None,
    "force_words_ids": None, "penalty_alpha": None, "guidance_scale": None, "stop_strings": None,
}  # fmt: skip


def shipped(home: Path, kind: str, shape: ModelShape) -> dict[str, Any]:
    """The shipped file nearest to a model: `data`, `model` or `inference_qwen2vl` of a size.

    Raises
    ------
    UserError: the installation lacks it.
    """
    size = "2b" if shape.tied else "72b" if shape.llm_layers >= LAYERS_OF_72B else "7b"
    path = home / EXAMPLES / f"{kind}_{size}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} can't be read ({error}); the installation of MindSpeed-MM is not whole."
        ) from error


def data_file(
    template: Mapping,
    *,
    hf_dir: Path,
    images: Path,
    train_data: Path,
    cache: Path,
    image_resolution: int,
    workers: int,
) -> dict[str, Any]:
    """`--mm-data`: where data and pictures are, and how they are read. Paths become absolute.

    Pictures are found as `dataset_dir/<name>`, so that the working directory has no part in it. A
    system turn before the first question takes the place of the template's system text.
    """
    filled = json.loads(json.dumps(template))
    parameters = filled["dataset_param"]
    parameters["preprocess_parameters"].update(
        model_name_or_path=str(hf_dir.resolve()), image_resolution=image_resolution
    )
    parameters["basic_parameters"].update(
        dataset_dir=str(images.resolve()),
        dataset=str(train_data.resolve()),
        cache_dir=str(cache.resolve()),
        preprocessing_num_workers=workers,
        max_samples=None,
    )
    parameters["attr"]["system_tag"] = "system"
    return filled


def model_file(
    template: Mapping, config: Mapping, layout: ParallelLayout, train: Mapping, context: int = 1
) -> dict[str, Any]:
    """`--mm-model` of a training: the sizes in config.json, the layout, and what is frozen.

    context: the context parallel size, which both parts of the model have to be told as well as
    the command line (the framework's docs/features/unaligned_ulysses_cp.md).
    """
    filled = _with_sizes(template, config, layout)
    encoder = filled["image_encoder"]
    if context > 1:
        for part in (encoder["vision_encoder"], filled["text_decoder"]):
            part["context_parallel_size"] = context
    encoder["vision_encoder"]["freeze"] = train["freeze_vision_encoder"]
    encoder["vision_projector"]["freeze"] = train["freeze_vision_projector"]
    return filled


def inference_file(
    template: Mapping,
    config: Mapping,
    layout: ParallelLayout,
    *,
    hf_dir: Path,
    end: int,
    text_end: int,
    max_new_tokens: int,
) -> dict[str, Any]:
    """`--mm-model` of answering: greedy, with tokenizer and processor of `hf_dir`.

    end, text_end: the tokens at which an answer ends, of a turn and of a text. Of the model's own
    generation_config.json nothing is taken: answers are greedy, whatever stands there. Temperature 0
    makes the pipeline choose the likeliest token; the shipped 0.01 with top_k 1 draws one of the
    likeliest, which are several when bf16 makes them equal.
    """
    filled = _with_sizes(template, config, layout)
    hf_dir = hf_dir.resolve()
    filled["tokenizer"]["from_pretrained"] = str(hf_dir)
    filled["image_processer_path"] = str(hf_dir / "preprocessor_config.json")
    filled["generation_config"].update(
        GREEDY,
        bos_token_id=text_end,
        pad_token_id=text_end,
        eos_token_id=[end, text_end],
        **{name: config.get(name, default) for name, default in TOKENS.items()},
        max_new_tokens=max_new_tokens,
    )
    return filled


def _with_sizes(template: Mapping, config: Mapping, layout: ParallelLayout) -> dict[str, Any]:
    shape = model_shape(dict(config))
    layout.check_model(shape)
    text = _text(config)
    scaling = text.get("rope_scaling") or text.get("rope_parameters") or {}
    filled = json.loads(json.dumps(template))
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
        pipeline_num_layers=list(layout.vit_pp_layers[0]),
    )
    filled["image_encoder"]["vision_projector"].update(
        input_size=shape.vit_hidden,
        hidden_size=shape.projector_out,
        ffn_hidden_size=shape.merged_hidden,
    )
    filled["text_decoder"].update(
        num_layers=shape.llm_layers,
        pipeline_num_layers=list(layout.llm_pp_layers[0]),
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
    return filled


def _text(config: Mapping) -> dict[str, Any]:
    """The text model's settings, which transformers 5 saves in a section of their own."""
    return {**config, **(config.get("text_config") or {})}
