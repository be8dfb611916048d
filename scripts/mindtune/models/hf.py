"""What transformers calls a family's classes. Only who has torch and transformers asks this.

A family's module has CONFIG and MODEL, classes of transformers with `from_pretrained`, and
`image_processor()`, the class of one that does without torchvision; PROJECTOR, what the vision tower calls
its last module, and PATCHES_IN_ORDER, whether that is given patches in the picture's own order.
"""

from types import ModuleType

from mindtune.models import room


def classes_of(model_type: str) -> ModuleType:
    return room(model_type, "hf")
