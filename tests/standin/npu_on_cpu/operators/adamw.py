"""The optimizer's step."""

import torch


def npu_apply_adam_w(
    beta1_power: float,
    beta2_power: float,
    lr: float,
    weight_decay: float,
    beta1: float,
    beta2: float,
    eps: float,
    grad: torch.Tensor,
    max_grad_norm: torch.Tensor | None,
    amsgrad: bool,
    maximize: bool,
    *,
    out: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One step of AdamW, in place on `out`: weights, first moments, second moments.

    beta1_power, beta2_power: the betas to the power of the steps *before* this one, as
    aclnnApplyAdamW documents; it multiplies once more before it corrects the bias. Weight decay
    is on the weights as they were before the step, and epsilon is added to the root of the
    corrected second moment. In the tensors' own type, which the framework makes float32.
    """
    if amsgrad:
        raise NotImplementedError("stand-in: npu_apply_adam_w with amsgrad")
    weights, first, second = out
    if maximize:
        grad = -grad
    first.mul_(beta1).add_(grad, alpha=1 - beta1)
    second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    root = (second / (1 - beta2_power * beta2)).sqrt_().add_(eps)
    weights.mul_(1 - lr * weight_decay)
    weights.addcdiv_(first, root, value=-lr / (1 - beta1_power * beta1))
    return weights, first, second
