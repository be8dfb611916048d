"""Keys that a configuration file has twice: YAML readers keep the last and say nothing."""

from collections.abc import Iterator
from pathlib import Path

import yaml


def duplicate_problems(path: Path) -> Iterator[str]:
    """The keys that are twice in one mapping of a YAML file, a sentence for each.

    What can't be read or parsed has none: whoever reads the file for its values says so.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return
    for name, first, second in _duplicates(node, ""):
        yield (
            f"{name} is twice in {path}, in line {first} and in line {second}, of which only the "
            "second would count; write it once."
        )


def _duplicates(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, int, int]]:
    """Dotted key, and the lines of its first and its further places."""
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name = f"{prefix}.{key.value}" if prefix else str(key.value)
            line = key.start_mark.line + 1
            if name in lines:
                yield name, lines[name], line
            lines.setdefault(name, line)
            yield from _duplicates(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _duplicates(item, f"{prefix}[{number}]")
