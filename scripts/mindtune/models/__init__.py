"""One room per model family: all that says what a family is.

A family is a package here, named as the `model_type` in its config.json; to add one takes the package
and a line of `FAMILIES`. Each module beside it, such as `shape`, is what callers ask, for any family,
and holds what families share; it asks the family's module of the same name. That name is also how the
hash of the code that a result depends on (`mindtune.glue.sourcecode`) finds the family's files.
"""

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from mindtune.errors import UserError

# `model_type` -> what the family is called.
FAMILIES = {"qwen2_vl": "Qwen2-VL", "qwen2_5_vl": "Qwen2.5-VL", "qwen3_vl": "Qwen3-VL"}

# For sentences.
TYPES = " or ".join(FAMILIES)
NAMES = " or ".join(FAMILIES.values())


def is_known(model_type: Any) -> bool:
    return isinstance(model_type, str) and model_type in FAMILIES


def family(config: Mapping[str, Any], where: str = "config.json") -> str:
    """The family of a model, by its config.json; `where` names that file.

    Raises
    ------
    UserError: it is of none of them.
    """
    model_type = config.get("model_type")
    if not is_known(model_type):
        known = " or ".join(map(repr, FAMILIES))
        raise UserError(f"{where}: model_type is {model_type!r}; only {known} can be converted")
    return model_type


def room(model_type: str, name: str) -> ModuleType:
    """A module of a family."""
    return import_module(f"{__name__}.{model_type}.{name}")
