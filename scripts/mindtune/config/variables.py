"""Environment variables in the configuration, where it names places.

The schema marks what is a place: `format: path` for files and directories, `format: url` for
addresses. In these, `$NAME` and `${NAME}` stand for the variable's value, `$$` for a dollar
sign, and `~` at the beginning of a path for the home directory. Any other text, such as a
question to the model, is taken as it is.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mindtune.config.schema import resolve

PLACES = ("path", "url")
_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|(?P<bare>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*)\})")


def with_variables(
    value: Any, schema: Mapping, environment: Mapping[str, str], prefix: str = ""
) -> tuple[Any, list[str]]:
    """`value` with variables replaced wherever the schema says that it is a place.

    prefix: the dotted key of `value`, for the sentences. Returns the new value, and a sentence
    for each variable that is not set.
    """
    problems: list[str] = []
    return _walk(value, schema, schema, environment, prefix, problems), problems


def _walk(
    value: Any,
    node: Mapping,
    root: Mapping,
    environment: Mapping[str, str],
    key: str,
    problems: list[str],
) -> Any:
    node = resolve(node, root)
    if isinstance(value, str) and node.get("format") in PLACES:
        return _expanded(value, node["format"], environment, key, problems)
    if isinstance(value, Mapping):
        children = node.get("properties", {})
        return {
            name: _walk(
                item,
                children.get(name, {}),
                root,
                environment,
                f"{key}.{name}" if key else str(name),
                problems,
            )
            for name, item in value.items()
        }
    if isinstance(value, list):
        child = node.get("items", {})
        return [
            _walk(item, child, root, environment, f"{key}[{number}]", problems)
            for number, item in enumerate(value)
        ]
    return value


def _expanded(
    text: str, kind: str, environment: Mapping[str, str], key: str, problems: list[str]
) -> str:
    def replaced(match: re.Match) -> str:
        if match["dollar"]:
            return "$"
        name = match["bare"] or match["braced"]
        if not environment.get(name):
            problems.append(
                f"{key} is {text}, but the environment variable {name} is not set; set it, or "
                "write the place itself."
            )
        return environment.get(name, "")

    found = _VARIABLE.sub(replaced, text)
    if has_control_characters(found):
        problems.append(
            f"{key} is {found!r}, which has a line break or the like; rename the place."
        )
    if kind == "url" and _has_credentials(found):
        problems.append(
            f"{key} has a user's name or a password in it, which logs and records would show; put "
            "them into ~/.netrc, which is read."
        )
    if kind == "path" and set(found) & set("{}"):
        problems.append(
            f"{key} is {found}, but braces in a path are wildcards to Snakemake; rename the place, or "
            "link to it by another name."
        )
    # Of the text as it was written: a variable's value is taken as it is.
    return str(Path(found).expanduser()) if kind == "path" and text.startswith("~") else found


def has_control_characters(name: str) -> bool:
    """Whether a name has characters that end lines in logs and lists: none of ours can hold it."""
    return any(character < " " or character == "\x7f" for character in name)


def _has_credentials(address: str) -> bool:
    return "@" in urlsplit(address).netloc
