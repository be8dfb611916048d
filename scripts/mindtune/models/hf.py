"""What transformers calls a family's classes. Only who has torch and transformers asks this.

A family's module has CONFIG and MODEL, classes of transformers with `from_pretrained`, and
`image_processor()`, the class of one that does without torchvision, and PROJECTOR: the name, below the vision
tower, of the module that makes tokens of patches, where all that the tower gives has gone through it, in the
order of the picture; otherwise None, and what it is given isn't kept while it is trained.
"""

from types import ModuleType

from mindtune.models import room


def classes_of(model_type: str) -> ModuleType:
    return room(model_type, "hf")
