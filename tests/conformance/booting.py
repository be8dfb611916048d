"""Megatron as pretrain_vlm.py starts it. Imported by programs of the framework's Python."""

import mindspeed.megatron_adaptor  # noqa: F401 - patches Megatron, hence first
from megatron.training import get_args
from megatron.training.initialize import initialize_megatron
from mindspeed_mm.arguments import extra_args_provider_decorator
from mindspeed_mm.configs.config import merge_mm_args, mm_extra_args_provider


def booted():
    """Start Megatron with what is on the command line; returns its arguments."""
    initialize_megatron(
        extra_args_provider=extra_args_provider_decorator(mm_extra_args_provider),
        args_defaults={"dataloader_type": "external"},
    )
    args = get_args()
    merge_mm_args(args)
    return args
