"""Rotary position embedding."""

import torch


def npu_rotary_mul(
    self: torch.Tensor, r1: torch.Tensor, r2: torch.Tensor, rotary_mode: str = "half"
) -> torch.Tensor:
    """`r1 * self + r2 * cat(-x2, x1)`, where x1 and x2 are the halves of the last dimension.

    r1, r2: cosines and sines, broadcast to `self` (four dimensions). The kernel computes bfloat16
    in float32 and rounds once (ops-transformer, rotary_position_embedding); so does this.
    Cosines and sines come in the caller's precision: for the language model MindSpeed-MM rounds
    them to bfloat16 first, for the vision encoder it does not.
    """
    if rotary_mode != "half":
        raise NotImplementedError(f"stand-in: npu_rotary_mul with rotary_mode {rotary_mode!r}")
    wide = self.float()
    x1, x2 = wide.chunk(2, dim=-1)
    rotated = torch.cat((-x2, x1), dim=-1)
    return (wide * r1.float() + rotated * r2.float()).to(self.dtype)
