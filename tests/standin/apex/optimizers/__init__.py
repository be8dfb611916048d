"""Megatron takes torch's AdamW unless both of these can be imported; MindSpeed puts its own there."""

import torch


class FusedAdam(torch.optim.AdamW):
    """Replaced by MindSpeed's AdamW before it is used."""


class FusedSGD(torch.optim.SGD):
    """Used with `--optimizer sgd` only."""
