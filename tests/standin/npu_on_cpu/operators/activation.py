"""Gated activations."""

import torch
from torch.nn.functional import gelu, silu


def npu_swiglu(self: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """`silu(a) * b` of the two halves a, b along `dim`.

    CANN's SwiGlu kernel computes bfloat16 and float16 in float32 and rounds once (ops-nn,
    activation/swi_glu); so does this. Plain `silu(a) * b` in bfloat16 rounds twice.
    """
    a, b = self.float().chunk(2, dim=dim)
    return (silu(a) * b).to(self.dtype)


def npu_geglu(
    self: torch.Tensor, dim: int = -1, approximate: int = 1, activate_left: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """`a * gelu(b)` of the two halves a, b along `dim` (the other way round: `activate_left`).

    approximate: 1 for tanh's approximation, 0 for the error function. In float32, rounded once.
    Returns the product and gelu's part. MindSpeed-MM needs it to be importable; Qwen2-VL never calls it.
    """
    a, b = self.float().chunk(2, dim=dim)
    if activate_left:
        a, b = b, a
    gate = gelu(b, approximate="tanh" if approximate else "none")
    return (a * gate).to(self.dtype), gate.to(self.dtype)
