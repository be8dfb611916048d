"""Fused kernels in place of transformers' own modules (`hf.kernels`), from packages that are optional."""

import torch

from mindtune.errors import UserError

LIGER = "liger"


def check_kernels(kernels: str | None, device: str) -> None:
    """
    Raises
    ------
    UserError: these kernels can't be used here.
    """
    if kernels == LIGER:
        _liger(device)


def use_kernels(model: torch.nn.Module, kernels: str | None, device: str) -> None:
    """Replace what a model's language model computes with, before it is trained.

    `liger` has fused RMSNorm and SwiGLU. They are put in module by module: liger-kernel 0.8.5's
    function for a whole model does not import beside transformers 5.23.

    Raises
    ------
    UserError: these kernels can't be used here.
    """
    if kernels != LIGER:
        return
    norm, swiglu, mlp = _liger(device)
    language = model.model.language_model
    norm(language.norm, eps=language.norm.variance_epsilon)
    for layer in language.layers:
        for own in (layer.input_layernorm, layer.post_attention_layernorm):
            norm(own, eps=own.variance_epsilon)
        swiglu(layer.mlp, mlp)


def _liger(device: str) -> tuple:
    """liger-kernel's functions for an RMSNorm and for a SwiGLU, and the class of the latter."""
    if not device.startswith("cuda"):
        raise UserError(
            f"hf.kernels is liger, whose kernels run on CUDA, but hf.device is {device}; write torch."
        )
    try:
        from liger_kernel.transformers.monkey_patch import (
            _patch_rms_norm_module,
            _patch_swiglu_module,
        )
        from liger_kernel.transformers.swiglu import LigerSwiGLUMLP
    except ImportError as error:
        raise UserError(
            f"hf.kernels is liger, but liger-kernel can't be imported ({error}); `pip install -r "
            "envs/kernels.txt`, or write torch."
        ) from error
    return _patch_rms_norm_module, _patch_swiglu_module, LigerSwiGLUMLP
