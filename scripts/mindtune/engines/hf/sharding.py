"""Decoder layers that several devices share: each keeps a part of their weights, gradients and moments.

A layer is put together where it is computed, and taken apart again (torch's FSDP2). What is outside the decoder's
layers, embeddings and vision tower, every device has whole. All devices go through the layers equally often.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard_layers(model: torch.nn.Module, device: torch.device, count: int) -> None:
    """Share the decoder's layers among `count` devices of which `device` is this process's.

    What is trained of them is kept in float32, whatever the model computes in, like the optimizer's main weights.
    """
    mesh = init_device_mesh(device.type, (count,))
    policy = MixedPrecisionPolicy(param_dtype=model.dtype, reduce_dtype=torch.float32)
    decoder = model.model.language_model
    for layer in decoder.layers:
        for parameter in layer.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        fully_shard(layer, mesh=mesh, mp_policy=policy)
        # A sum: the loss of each device has its share of the weights already.
        layer.set_gradient_divide_factor(1.0)
        layer.set_force_sum_reduction_for_comms(True)
    fully_shard(
        decoder, mesh=mesh, ignored_params=set(decoder.parameters())
    )  # all begin and end here


def is_shared(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, DTensor)


def shares_layers(model: torch.nn.Module) -> bool:
    """Whether `shard_layers` has been here."""
    return any(map(is_shared, model.parameters()))


def all_of(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor; to be called on all devices."""
    return tensor.full_tensor() if is_shared(tensor) else tensor


def part_like(tensor: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """What belongs on this device of a whole tensor, shared as `own` is."""
    if not is_shared(own) or tensor.shape != own.shape:
        return tensor
    moved = tensor.to(own.device)
    return distribute_tensor(moved, own.device_mesh, own.placements, src_data_rank=None)


def parts_like(
    states: Mapping[int, Mapping[str, Any]], parameters: Iterable[torch.Tensor]
) -> dict[int, dict[str, Any]]:
    """An optimizer's states by number of parameter, those of shared ones shared alike."""
    own = list(parameters)
    return {
        number: {
            name: part_like(value, own[number]) if isinstance(value, torch.Tensor) else value
            for name, value in state.items()
        }
        for number, state in states.items()
    }
