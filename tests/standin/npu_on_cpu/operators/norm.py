"""Normalization."""

import torch


def npu_rms_norm(
    self: torch.Tensor, gamma: torch.Tensor, epsilon: float = 1e-6
) -> tuple[torch.Tensor, torch.Tensor]:
    """RmsNorm over the last dimension: `self / rms(self) * gamma`, and 1 / rms(self).

    CANN's RmsNorm kernel casts bfloat16 and float16 to float32, multiplies by the reciprocal and by
    gamma there, and rounds once at the end (ops-nn, norm/rms_norm); so does this. transformers'
    Qwen2RMSNorm rounds once more, before gamma.

    Returns
    -------
    The normalized tensor in the input's type, and the reciprocal (…, 1) in float32.
    """
    wide = self.float()
    reciprocal = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return (wide * reciprocal * gamma.float()).to(self.dtype), reciprocal
