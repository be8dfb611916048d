"""From what pydantic found to sentences that say what is wrong, where, and what to write."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mindtune.settings.kinds import MISTAKE, SHOWN, shown
from mindtune.settings.section import item_model


def sentences(error: ValidationError, model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """A sentence for each mistake. prefix: what stands before each key, without a dot."""
    for found in error.errors(include_url=False):
        yield _sentence(found, model, prefix)


def _sentence(error: ErrorDetails, model: type[BaseModel], prefix: str) -> str:
    loc, value, context = error["loc"], error["input"], error.get("ctx", {})
    if loc and loc[-1] == "[key]":
        name = shown(str(loc[-2]))
        return (
            f"the name {name} in {dotted((prefix, *loc[:-2]))} {context.get('words', error['msg'])}"
        )
    path = dotted((prefix, *loc))
    name = path or "the configuration"
    match error["type"]:
        case "mindtune":
            return f"{path}{context['at']} {context['words']}"
        case "extra_forbidden":
            known = _keys(model, loc[:-1])
            return unknown_key(dotted((prefix, *loc[:-1])), str(loc[-1]), known)
        case "missing":
            return (
                f"{dotted((prefix, *loc[:-1])) or 'the configuration'} lacks the key `{loc[-1]}`."
            )
        case "model_type" | "model_attributes_type" | "dict_type":
            null = " or null" if loc[:1] == ("experiments",) and len(loc) == 2 else ""
            return f"{name} is {shown(value)}, but must be a mapping of keys to values{null}."
        case "list_type":
            return f"{name} is {shown(value)}, but must be a list."
        case "too_short":
            return f"{name} is empty; write at least {context['min_length']} entry."
        case "too_long":
            return f"{name} has {len(value)} entries, but may have at most {context['max_length']}."
    return f"{name}: {error['msg']}."


assert MISTAKE == "mindtune"  # noqa: S101 - the case above


def _keys(model: type[BaseModel], loc: Iterable[Any]) -> list[str]:
    """The keys that the section at a place has."""
    found: type[BaseModel] | None = model
    for part in loc:
        field = _field(found, part) if found and isinstance(part, str) else None
        if field is not None:
            found = item_model(field.annotation)
    return [field.alias or name for name, field in found.model_fields.items()] if found else []


def _field(model: type[BaseModel], name: str) -> FieldInfo | None:
    by_name = {field.alias or own: field for own, field in model.model_fields.items()}
    return by_name.get(name)


def dotted(parts: Iterable) -> str:
    """`train.lr`, `prompts.named[0].image`; empty parts don't count."""
    text = ""
    for part in parts:
        if part == "":
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{_cut(part)}" if text else _cut(part)
    return text


def unknown_key(path: str, key: str, known: Iterable[str]) -> str:
    known = list(known)
    name = _cut(key) or '""'
    full = f"{path}.{name}" if path else name
    guess = difflib.get_close_matches(key[:SHOWN], known, 1, cutoff=0.5)
    if guess:
        return f"{full} is not a key; did you mean `{guess[0]}`?"
    return f"{full} is not a key; {path or 'the configuration'} knows {', '.join(known)}."


def _cut(text: Any) -> str:
    """A name in one line, not too long; what can't be printed is escaped."""
    text = str(text)
    if not text.isprintable():
        text = ascii(text)[1:-1]
    return text if len(text) <= 200 else f"{text[:200]}…"


def printable(text: str) -> str:
    """Text that every stream takes: lone surrogates are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()
