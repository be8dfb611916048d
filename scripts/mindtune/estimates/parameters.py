"""How many parameters a model has, by its parts."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mindtune.models.adapters import adapter_parameters
from mindtune.models.shape import ModelShape
from mindtune.models.tensors import hf_shapes, tensors_of

if TYPE_CHECKING:
    from mindtune.settings.sections.train import Train


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters of a model's parts. shape: of the model; without it nothing is known of adapters."""

    language: int
    vision: int
    projector: int
    shape: ModelShape | None = None

    @property
    def all(self) -> int:
        return self.language + self.vision + self.projector

    def trained(self, train: "Train") -> int:
        """Those that a training changes: adapters, or all but what its `freeze_…` keys name."""
        if train.lora and self.shape:
            return adapter_parameters(self.shape, train)
        vision = 0 if train.freeze_vision_encoder else self.vision
        projector = 0 if train.freeze_vision_projector else self.projector
        return self.language + vision + projector


def count_parameters(shape: ModelShape) -> Parameters:
    """The parameters of a model of this shape."""
    family, counts = tensors_of(shape), Counter()
    for name, sides in hf_shapes(shape).items():
        counts[family.kind(name)] += math.prod(sides)
    return Parameters(**counts, shape=shape)
