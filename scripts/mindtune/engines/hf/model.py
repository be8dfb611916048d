"""Building transformers' model, from a directory or from published tensors."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import torch
from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from mindtune.errors import UserError
from mindtune.models import family
from mindtune.models.hf import classes_of
from mindtune.models.shape import read_config


def load_model(model_dir: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The model in a Hugging Face directory.

    Its generation_config.json is not read: transformers would fill up from it whatever a call of
    `generate` leaves open, be it a penalty, beams or several answers at once.
    """
    transformers_logging.disable_progress_bar()
    try:
        model = _classes(model_dir).MODEL.from_pretrained(
            model_dir, dtype=dtype, local_files_only=True, generation_config=GenerationConfig()
        )
    except (OSError, ValueError, SafetensorError, UserError) as error:
        raise UserError(f"the model in {model_dir} can't be loaded: {error}.") from error
    model.generation_config = GenerationConfig()
    return model


def build_model(
    hf_dir: Path, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> PreTrainedModel:
    """A model with the config of `hf_dir` and the given published tensors.

    Raises
    ------
    UserError: the tensors are not those that the config calls for.
    """
    transformers_logging.disable_progress_bar()
    classes = _classes(hf_dir)
    config = classes.CONFIG.from_pretrained(hf_dir, local_files_only=True)
    try:
        model, report = classes.MODEL.from_pretrained(
            None, config=config, state_dict=dict(tensors), dtype=dtype, output_loading_info=True
        )
    except RuntimeError as error:
        raise UserError(
            f"the checkpoint's tensors have other shapes than {hf_dir}/config.json says; they are "
            f"of different models ({error})."
        ) from error
    faults = sorted(report["missing_keys"]) + sorted(report["unexpected_keys"])
    if faults:
        raise UserError(
            f"the checkpoint and {hf_dir}/config.json are of different models: "
            f"{len(faults)} tensors are missing or unknown, the first being {faults[0]}."
        )
    return model


def _classes(hf_dir: Path) -> ModuleType:
    """The classes of the family of the model in a directory."""
    return classes_of(family(read_config(hf_dir), str(hf_dir / "config.json")))
