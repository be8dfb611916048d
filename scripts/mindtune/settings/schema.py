"""The JSON Schemas that editors complete and check from, made from the models."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from mindtune.settings.checks import OVERLAY_KEYS, OVERLAY_SECTIONS, OVERLAY_SOURCES
from mindtune.settings.sections import EXPERIMENT

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    """A model's JSON Schema; descriptions are English, with the Chinese below."""
    found = _tidy(model.model_json_schema())
    if "experiments" in found.get("properties", {}):
        _complete_overlays(found)
    return {"$schema": DIALECT, **found, "title": title}


def _complete_overlays(schema: dict[str, Any]) -> None:
    """Let editors complete the overlays of experiments as they do the sections themselves."""
    own = schema["properties"]
    sections = {name: {"$ref": own[name]["$ref"]} for name in OVERLAY_SECTIONS}
    sources = {name: schema["$defs"]["Sources"]["properties"][name] for name in OVERLAY_SOURCES}
    sections |= {name: own.pop(name) for name in OVERLAY_KEYS}
    sections["sources"] = {"type": "object", "additionalProperties": False, "properties": sources}
    names = EXPERIMENT.json()
    overlay = {"type": ["object", "null"], "additionalProperties": False, "properties": sections}
    own["experiments"].pop("patternProperties", None)
    own["experiments"] |= {"propertyNames": names, "additionalProperties": overlay}


def _tidy(value: Any) -> Any:
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    found = {key: _tidy(item) for key, item in value.items()}
    if isinstance(found.get("zh"), str):
        # pydantic leaves out a description that is the section's docstring.
        found["description"] = "\n".join(
            [*filter(None, [found.get("description")]), found.pop("zh")]
        )
    for mark in ("later", "in_experiments", "without_effect"):
        if found.get(mark) is True:
            del found[mark]
    if isinstance(found.get("title"), str):
        del found["title"]
    return found
