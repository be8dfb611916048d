"""What a vision tower makes of pictures, for the layers of the decoder that take it.

Every family puts features where the tokens of a picture stand; some add others to what the first layers of the
decoder give there. All of these are one tensor here, side by side, (merged patches, hidden x levels), so that
what keeps features, sends them and puts them in order need not know how many there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling


@dataclass
class Seen(BaseModelOutputWithPooling):
    """As transformers' models with levels take it: `deepstack_features`, for each layer those of all pictures."""

    deepstack_features: list[tuple[torch.Tensor, ...]] | None = None


def side_by_side(output: BaseModelOutputWithPooling) -> torch.Tensor:
    """(merged patches, hidden x levels) of all pictures in a tower's output, joined or by picture."""
    levels = [output.pooler_output, *(getattr(output, "deepstack_features", None) or ())]
    joined = [level if isinstance(level, torch.Tensor) else torch.cat(level) for level in levels]
    return joined[0] if len(joined) == 1 else torch.cat(joined, dim=-1)


def levels(model: torch.nn.Module, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What stands for the tokens, and what is added in each of the first layers: (merged patches, hidden) each."""
    return features.split(model.config.text_config.hidden_size, dim=-1)


def as_output(
    model: torch.nn.Module, features: Sequence[torch.Tensor]
) -> BaseModelOutputWithPooling:
    """What transformers' model takes in place of pictures. features: some for each, or all together."""
    first, *deeper = zip(*(levels(model, some) for some in features), strict=True)
    if not deeper:
        return BaseModelOutputWithPooling(pooler_output=first)
    return Seen(pooler_output=first, deepstack_features=deeper)
