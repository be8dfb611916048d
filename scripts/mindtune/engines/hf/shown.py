"""Pictures whose features are kept, on their way from where data is loaded to the model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch


@dataclass(frozen=True)
class Shown:
    """A picture on its way to the model.

    name: SHA-256 of its file. grid_thw: int64 (1, 3), its patches in time, height and width.
    features: (merged patches, hidden x levels), or, where the projector is trained, what it is given
    (patches, width); None before they are computed; then pixel_values: float32 (patches, values).
    """

    name: str
    grid_thw: torch.Tensor
    features: torch.Tensor | None = None
    pixel_values: torch.Tensor | None = None

    def pin_memory(self) -> "Shown":
        """The same in pinned memory; torch's data loader calls this."""
        return self._mapped(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device, non_blocking: bool = False) -> "Shown":
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def _mapped(self, change) -> "Shown":
        found = {n: change(v) for n, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return replace(self, **found)


class Looking(Protocol):
    """What looks at pictures where data is loaded (`mindtune.engines.hf.features.Features`)."""

    def look(self, path: Path) -> Shown: ...


class Kept(Protocol):
    """What gives features to the training (`mindtune.engines.hf.features.Features`)."""

    def of(self, shown: Shown) -> torch.Tensor: ...

    def merged(self, features: torch.Tensor) -> torch.Tensor: ...


def known(pictures: Sequence[Shown]) -> torch.Tensor | None:
    """The features of all pictures, one after another; None where some are not computed yet."""
    if any(picture.features is None for picture in pictures):
        return None
    return torch.cat([picture.features for picture in pictures])
