"""The schema of the configuration, and what its nodes refer to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


def load_schema(path: str | Path) -> dict:
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


def resolve(node: Mapping, root: Mapping) -> Mapping:
    """A node of a schema with what its `$ref` refers to; its own keys win."""
    if "$ref" not in node:
        return node
    found: Any = root
    for part in node["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return {**found, **node}
