"""What every section of the configuration is: unknown keys are refused, and nothing changes later.

A key is declared in one line, and all else (checks, defaults, reference pages, completion in
editors) follows from it:

    lr: Annotated[float, Number(above=0, at_most=1)] = key(1.0e-5, "Peak learning rate.", "学习率峰值。")
"""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer
from pydantic_core import PydanticUndefined


class Section(BaseModel):
    """A mapping of known keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_serializer(mode="wrap")
    def _without_later_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Plain containers; without the keys that came later and have their default, and without
        those that no result depends on.

        A section that came later has it where nothing is left in it, and so has a list.
        """
        found = handler(self)
        for name, field in type(self).model_fields.items():
            marks = field.json_schema_extra or {}
            unsaid = marks.get("later") and found.get(name) in (field.default, {}, [])
            if marks.get("without_effect") or unsaid:
                found.pop(name, None)
        return found


def key(
    default: Any,
    english: str,
    chinese: str,
    *,
    later: bool = False,
    in_experiments: bool = False,
    without_effect: bool = False,
    made: Any = None,
) -> Any:
    """A key with its default and its meaning; `...` for a default where it must be given.

    later: an optional key that came when results of earlier versions were there already. At its
    default it isn't among a section's plain settings, so that those results still count; a section made
    of them has the default again, which therefore must never change. in_experiments: a key that stands
    within an experiment only. without_effect: no result depends on it, so that it is never among a
    section's plain settings, nor in a section made of them. made: what makes a default that is a container.
    """
    marks = {
        "later": later, "in_experiments": in_experiments, "without_effect": without_effect,
    }  # fmt: skip
    extra = {"zh": chinese} | {name: True for name, given in marks.items() if given}
    if made is not None:
        return Field(default_factory=made, description=english, json_schema_extra=extra)
    return Field(
        PydanticUndefined if default is ... else default,
        description=english, json_schema_extra=extra,
    )  # fmt: skip


def section(
    model: type[Section], english: str, chinese: str, *, later: bool = False, **values: Any
) -> Any:
    """A key that is a section, with the defaults of its own keys but for `values`."""
    return key(None, english, chinese, later=later, made=lambda: model(**values))


def item_model(annotation: Any) -> type[Section] | None:
    """The section that an annotation names, directly or as the items of a list."""
    for found in (annotation, *get_args(annotation)):
        if isinstance(found, type) and issubclass(found, Section):
            return found
    return None
