"""The language model's frozen weights in 4 bits, for adapters beside them (QLoRA, arXiv 2305.14314).

bitsandbytes is optional, and imported where it is wanted only.
"""

import torch

from mindtune.errors import UserError

NF4 = "nf4"


def quantize_layers(model: torch.nn.Module) -> None:
    """Put linear modules of 4 bits in the place of those of the language model's layers.

    Of each 64 weights the scale is kept in 8 bits, and of each 256 scales one in float32. They are
    computed as the model goes to its device; products are in the model's own type.

    Raises
    ------
    UserError: bitsandbytes is not installed.
    """
    kinds = bitsandbytes_modules()
    for layer in model.model.language_model.layers:
        for name, linear in list(layer.named_modules()):
            if isinstance(linear, torch.nn.Linear):
                _replace(layer, name, _of_four_bits(linear, kinds))


def is_quantized(model: torch.nn.Module) -> bool:
    """Whether `quantize_layers` has been here."""
    modules = model.model.language_model.layers.modules()
    return any(type(module).__name__ == "Linear4bit" for module in modules)


def _of_four_bits(linear: torch.nn.Linear, kinds) -> torch.nn.Module:
    made = kinds.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=linear.weight.dtype,
        quant_type=NF4,
        device="meta",
    )
    made.weight = kinds.Params4bit(
        linear.weight.data, requires_grad=False, quant_type=NF4, module=made
    )
    made.bias = linear.bias
    # It would lay them out anew at the first evaluation, for a product that has no gradient.
    made.support_avx512bf16_for_cpu = False
    return made


def _replace(layer: torch.nn.Module, name: str, module: torch.nn.Module) -> None:
    place, _, own = name.rpartition(".")
    setattr(layer.get_submodule(place), own, module)


def bitsandbytes_modules():
    """
    Raises
    ------
    UserError: bitsandbytes is not installed.
    """
    try:
        import bitsandbytes
    except ImportError as error:
        raise UserError(
            f"hf.frozen_weights is {NF4}, but bitsandbytes can't be imported ({error}); `pip install -r "
            "envs/optimizers.txt`, or write whole."
        ) from error
    return bitsandbytes.nn
