"""Megatron's learning rate, the same for all engines."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mindtune.settings.sections.train import Train


def learning_rate(step: int, train: "Train") -> float:
    """The learning rate after `step` iterations, which iteration `step` + 1 uses.

    Megatron-LM's OptimizerParamScheduler: linear from 0 over `lr_warmup_fraction` of
    `train_iters`, then `lr_decay_style` down to `min_lr` at `train_iters`. Iteration 1 runs with
    a learning rate of 0; Megatron's log shows the value *after* each iteration.
    """
    peak, low, total = train.lr, train.min_lr, train.train_iters
    warmup = train.lr_warmup_fraction * total
    if warmup > 0 and step <= warmup:
        return peak * step / warmup
    if train.lr_decay_style == "constant":
        return peak
    if step > total:
        return low
    share = (step - warmup) / (total - warmup)
    if train.lr_decay_style == "linear":
        return low + (1 - share) * (peak - low)
    return low + 0.5 * (math.cos(math.pi * share) + 1) * (peak - low)
