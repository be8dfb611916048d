"""Turning schema errors into sentences that say what is wrong, where, and what to write."""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError


def schema_errors(value: Any, schema: Mapping) -> Iterator[ValidationError]:
    errors = Draft202012Validator(schema).iter_errors(value)
    yield from sorted(errors, key=lambda error: [str(part) for part in error.absolute_path])


def sentence(error: ValidationError, prefix: str = "") -> str:
    """Say what is wrong with a value, where, and what to write instead."""
    path = _dotted([*filter(None, [prefix]), *error.absolute_path])
    value, limit = error.instance, error.validator_value
    shown = json.dumps(value, ensure_ascii=False) if not isinstance(value, Mapping) else "a mapping"
    name = path or "the configuration"
    match error.validator:
        case "additionalProperties":
            known = error.schema.get("properties", {})
            unknown = [key for key in value if key not in known]
            return "; ".join(_unknown_key_sentence(path, key, known) for key in unknown)
        case "required":
            missing = next(key for key in limit if key not in value)
            return f"{name} lacks the key `{missing}`."
        case "type":
            return f"{name} is {shown}, but must be {_type_words(limit)}."
        case "enum":
            guess = difflib.get_close_matches(str(value), [str(v) for v in limit], 1)
            hint = f" Did you mean {guess[0]}?" if guess else ""
            return f"{name} is {shown}, but must be one of {', '.join(map(str, limit))}.{hint}"
        case "minimum":
            return f"{name} is {shown}, but must be at least {limit}."
        case "maximum":
            return f"{name} is {shown}, but must be at most {limit}."
        case "exclusiveMinimum":
            return f"{name} is {shown}, but must be greater than {limit}."
        case "exclusiveMaximum":
            return f"{name} is {shown}, but must be less than {limit}."
        case "minLength" | "minItems" | "minProperties":
            return f"{name} is empty; write at least {limit} {_thing(error.validator)}."
        case "pattern" if path == "experiments":
            return (
                f"the name {shown} in {name} may only have letters, digits, `_`, `-` and `.`, "
                "and must begin with a letter or digit: results are written under it."
            )
        case "pattern" if "propertyNames" in error.absolute_schema_path:
            return f"the name {shown} in {name} is not one; names there match {limit}."
        case "pattern":
            described = error.schema.get("description", f"of the form {limit}")
            return f"{name} is {shown}, but must be {described[0].lower()}{described[1:]}"
    return f"{name}: {error.message}."


def _dotted(parts: Iterable) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _unknown_key_sentence(path: str, key: str, known: Iterable[str]) -> str:
    full = f"{path}.{key}" if path else key
    guess = difflib.get_close_matches(key, list(known), 1, cutoff=0.5)
    if guess:
        return f"{full} is not a key; did you mean `{guess[0]}`?"
    return f"{full} is not a key; {path or 'the configuration'} knows {', '.join(known)}."


def _type_words(types: str | list[str]) -> str:
    words = {
        "integer": "a whole number",
        "number": "a number",
        "string": "text",
        "boolean": "true or false",
        "array": "a list",
        "object": "a mapping of keys to values",
        "null": "null",
    }
    types = [types] if isinstance(types, str) else types
    return " or ".join(words[name] for name in types)


def _thing(validator: str) -> str:
    return {"minLength": "character", "minItems": "entry", "minProperties": "entry"}[validator]
