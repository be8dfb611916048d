"""Sections made again of plain containers, such as Snakemake's params and the requests of processes.

Nothing is read or checked here; that was done when the configuration was loaded.
"""

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from typing import Any, TypeVar

from pydantic.fields import FieldInfo

from mindtune.settings.section import Section, item_model
from mindtune.settings.sections import Settings

Found = TypeVar("Found", bound=Section)


def typed(name: str, plain: Mapping[str, Any]) -> Any:
    """A section of the configuration with what `plain` has of it; see `made_of`.

    name: its dotted key, such as `train` or `sources.download`.
    """
    model: type[Section] | None = Settings
    for part in name.split("."):
        model = item_model(model.model_fields[part].annotation) if model else None
    if model is None:
        raise TypeError(f"{name} is no section")
    return made_of(model, plain)


def made_of(model: type[Found], plain: Mapping[str, Any]) -> Found:
    """A section with just the keys of `plain`, so that reading another one is an AttributeError.

    But a key that came later is not among plain settings where it has its default, and has it.
    `model_dump()` gives `plain` again.

    Raises
    ------
    TypeError: `plain` has a key that the section hasn't.
    """
    models, later = _parts_of(model)
    if unknown := plain.keys() - models.keys():
        raise TypeError(f"{model.__name__} has no {', '.join(sorted(unknown))}")
    found = {name: _value(models[name], value) for name, value in plain.items()}
    for name, field in later.items():
        if name not in plain:
            factory: Any = field.default_factory
            found[name] = factory() if factory else field.default
    section = model.__new__(model)
    object.__setattr__(section, "__dict__", found)
    object.__setattr__(section, "__pydantic_fields_set__", set(plain))
    object.__setattr__(section, "__pydantic_extra__", None)
    object.__setattr__(section, "__pydantic_private__", None)
    return section


@cache
def _parts_of(
    model: type[Section],
) -> tuple[dict[str, type[Section] | None], dict[str, FieldInfo]]:
    """Of each key the section that it is, or whose list; and the keys that came later."""
    fields = model.model_fields.items()
    later = {name: field for name, field in fields if (field.json_schema_extra or {}).get("later")}
    return {name: item_model(field.annotation) for name, field in fields}, later


def _value(model: type[Section] | None, value: Any) -> Any:
    if model and isinstance(value, dict):
        return made_of(model, value)
    if model and isinstance(value, list):
        return [made_of(model, item) for item in value]
    return deepcopy(value) if isinstance(value, dict | list) else value
