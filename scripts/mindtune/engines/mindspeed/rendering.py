"""The framework's JSON files for a run: its shipped ones, with our values in their places.

What the shipped files of a family's models hold beside sizes and paths (activation
functions, fused operators, recomputation) is kept. Every size comes from the model's config.json
and every layer list from the layout, so that a file can't disagree with the checkpoint.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtune.checkpoint.layout import ParallelLayout
from mindtune.engines.mindspeed.cache import PROCESSOR_FILES
from mindtune.errors import UserError
from mindtune.models import family
from mindtune.models.mindspeed import framework_of
from mindtune.models.shape import ModelShape, model_shape

if TYPE_CHECKING:
    from mindtune.settings.sections.train import Train

# Whatever could make an answer another than the likeliest one, switched off.
GREEDY = {
    "do_sample": False, "temperature": 0, "num_beams": 1, "num_return_sequences": 1,
    "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0, "min_new_tokens": None,
    "bad_words_ids": None, "suppress_tokens": None, "begin_suppress_tokens": None,
    "sequence_bias": None, "forced_bos_token_id": None, "forced_eos_token_id": None,
    "force_words_ids": None, "penalty_alpha": None, "guidance_scale": None, "stop_strings": None,
}  # fmt: skip


def shipped(home: Path, kind: str, shape: ModelShape) -> dict[str, Any]:
    """The shipped file nearest to a model: its `data`, `model` or `inference`.

    Raises
    ------
    UserError: the installation lacks it.
    """
    framework = framework_of(shape.model_type)
    path = home / framework.examples / framework.files[kind].format(size=framework.size(shape))
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} can't be read ({error}); the installation of MindSpeed-MM is not whole."
        ) from error


def readable(hf_dir: Path, shape: ModelShape, directory: Path) -> Path:
    """A directory from which the framework reads tokenizer and image processor: `hf_dir` where it can.

    Otherwise `directory` is made so, with what has to be otherwise changed.
    """
    changes = framework_of(shape.model_type).reads
    if not changes:
        return hf_dir
    directory.mkdir(parents=True, exist_ok=True)
    for name in PROCESSOR_FILES:
        if (hf_dir / name).is_file():
            content = (hf_dir / name).read_bytes()
            if name in changes:
                content = json.dumps(json.loads(content) | changes[name], indent=2).encode()
            (directory / name).write_bytes(content)
    return directory


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
    template: Mapping, config: Mapping, layout: ParallelLayout, train: "Train", context: int = 1
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
    encoder["vision_encoder"]["freeze"] = train.freeze_vision_encoder
    encoder["vision_projector"]["freeze"] = train.freeze_vision_projector
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
    tokens = framework_of(family(config)).tokens
    hf_dir = hf_dir.resolve()
    filled["tokenizer"]["from_pretrained"] = str(hf_dir)
    filled["image_processer_path"] = str(hf_dir / "preprocessor_config.json")
    filled["generation_config"].update(
        GREEDY,
        bos_token_id=text_end,
        pad_token_id=text_end,
        eos_token_id=[end, text_end],
        **{name: config.get(name, default) for name, default in tokens.items()},
        max_new_tokens=max_new_tokens,
    )
    return filled


def _with_sizes(template: Mapping, config: Mapping, layout: ParallelLayout) -> dict[str, Any]:
    shape = model_shape(dict(config))
    layout.check_model(shape)
    filled = json.loads(json.dumps(template))
    vision, language = list(layout.vit_pp_layers[0]), list(layout.llm_pp_layers[0])
    framework_of(shape.model_type).fill(filled, config, shape, vision, language)
    return filled
