"""YAML files that a user names, read as data: what is in them, where, and as it is written.

A YAML reader may hang on a pipe, end in a traceback on other bytes, fill the memory from a few
lines of aliases, and read another value than the one that was written: `1:30` is 90 to YAML 1.1,
`010` is 8, and of the names `1.0e-3` and `0.001` one is lost, since both are one number. So the
file is looked at as text and as nodes before any value counts.
"""

import datetime
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mindtune.errors import UserError
from mindtune.files import read_text, regular

LARGEST = 400_000  # bytes of a file; readers in Python take a second for each 60,000
DEEPEST = 50
MOST_VALUES = 100_000  # with each alias counted as what it stands for
# Where the keys of a mapping are names that the user gives.
NAMES = ("experiments", "prompts.families", "mindspeed.environment")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_KNOWN = {_TAG + kind for kind in
          ("str", "int", "float", "bool", "null", "timestamp", "map", "seq", "merge", "value")}  # fmt: skip
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_OCTAL = re.compile(r"[-+]?0[0-9_]+")


@dataclass
class Written:
    """A file of the configuration, as it is written.

    Attributes
    ----------
    value: what it says, with all keys as text. lines: dotted key -> the line where it stands.
    problems: a sentence for each key that is there twice, and for each value that YAML would read
    otherwise than it is written.
    """

    path: Path
    value: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_yaml(path: Path, name: str) -> Any:
    """The content of a file that was named by `name`, a key or an option.

    Raises
    ------
    UserError: it can't be read, is not YAML, or is too much of it.
    """
    node = compose(path, name)
    return None if node is None else _said(node, path, name)


def read_written(path: Path, name: str = "the configuration") -> Written:
    """A file of the configuration. name: what it is, for sentences.

    Raises
    ------
    UserError: it can't be read, is not YAML, is no mapping, or is a template.
    """
    node = compose(path, name)
    if node is None:
        raise UserError(f"{name} {path} is empty; write at least `engine: hf`.")
    if not isinstance(node, yaml.MappingNode):
        kind = "a list" if isinstance(node, yaml.SequenceNode) else "text"
        raise UserError(f"{name} {path} is {kind}, but must be a mapping of keys to values.")
    for key, _ in node.value:
        if key.value == "__use_yte__":
            raise UserError(
                f"{name} {path} has `__use_yte__` in line {_line(key)}: such templates run code "
                "before anything is checked; write plain YAML."
            )
    found = Written(path, {})
    _look(node, "", found)
    if not found.problems:
        found.value = _said(node, path, name)
    return found


def _said(node: yaml.Node, path: Path, name: str) -> Any:
    try:
        value = _json(read_text(path))
        return _value(node) if value is None else value
    except UserError as error:
        raise UserError(f"{name} {path}: {error}") from error


def compose(path: Path, name: str) -> yaml.Node | None:
    """The nodes of a YAML file, which is bounded in size, depth and aliases; None when empty.

    Raises
    ------
    UserError: see above.
    """
    try:
        size = regular(path).stat().st_size
        if size > LARGEST:
            raise UserError(
                f"{path} has {size} bytes, but may have at most {LARGEST}; move long lists into the "
                "data."
            )
        text = read_text(path)
    except UserError as error:
        raise UserError(f"{name} {error}") from None
    if _json(text) is not None:
        # What YAML doesn't take: tabs, which JSON has outside of text only, and pairs of surrogates.
        text = _SURROGATE.sub(r"\\u003f", text.replace("\t", " "))
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            opens = isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent)
            depth += opens - isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent)
            if depth > DEEPEST:
                raise UserError(
                    f"{name} {path} is nested more than {DEEPEST} levels deep in line "
                    f"{event.start_mark.line + 1}; no setting is."
                )
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{name} {path} is not YAML: {_reason(error)}.") from error
    if node is not None:
        _check_nodes(node, f"{name} {path}")
    return node


def _json(text: str) -> dict[str, Any] | None:
    """What a JSON object says, None for anything else: Snakemake reads a file as JSON first."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _reason(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        words = ", ".join(filter(None, (error.context, error.problem)))
        return f"line {mark.line + 1}: {words}" if mark else words
    return " ".join(str(error).split())


def _check_nodes(root: yaml.Node, where: str) -> None:
    """Raises UserError: a node holds itself, stands for too many, or has a tag of its own."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, above: tuple[int, ...]) -> int:
        if id(node) in above:
            raise UserError(
                f"{where}: the mapping or list in line {_line(node)} holds itself by an alias (*); "
                "write its values."
            )
        if node.tag not in _KNOWN:
            raise UserError(
                f"{where} has the tag {node.tag.replace(_TAG, '!!')[:80]} in line {_line(node)}, which "
                "has no meaning here; remove it."
            )
        if id(node) not in sizes:
            inner = (*above, id(node))
            sizes[id(node)] = 1 + sum(size(child, inner) for child in _children(node))
        return sizes[id(node)]

    values = size(root, ())
    if values > MOST_VALUES:
        raise UserError(
            f"{where} stands for {values if values < 10**12 else 'more than 10**12'} values with its "
            f"aliases (*) written out, but may have at most {MOST_VALUES}; write the values."
        )


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _look(node: yaml.Node, name: str, found: Written) -> None:
    """Collect lines, and what is wrong with the text, of a node under a dotted key."""
    found.lines.setdefault(name, _line(node))
    if isinstance(node, yaml.MappingNode):
        before: dict[str, int] = {}
        for key, value in node.value:
            below = f"{name}.{_text(key)}" if name else _text(key)
            line = _line(key)
            if not isinstance(key, yaml.ScalarNode):
                found.problems.append(
                    f"a list or a mapping stands for a key in {found.path}, line {line}; write a name."
                )
                continue
            if _text(key) in before and key.tag != f"{_TAG}merge":
                found.problems.append(
                    f"{below} is twice in {found.path}, in line {before[_text(key)]} and in line {line}, of "
                    "which only the second would count; write it once."
                )
            before.setdefault(_text(key), line)
            if key.tag == f"{_TAG}timestamp":
                found.problems.append(
                    f"{below} in {found.path}, line {line}, is a date to YAML and no name; put it into "
                    f'quotes: "{key.value}".'
                )
            found.lines.setdefault(below, line)
            _look(value, below, found)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            _look(item, f"{name}[{number}]", found)
    elif otherwise := _read_otherwise(node):
        found.problems.append(
            f"{name} is {node.value[:80]} in {found.path}, line {_line(node)}, which YAML reads as "
            f'{otherwise[:80]}; write that, or "{node.value[:80]}" in quotes for the text.'
        )


def _text(key: yaml.Node) -> str:
    return key.value if isinstance(key, yaml.ScalarNode) else "…"


def _read_otherwise(node: yaml.ScalarNode) -> str | None:
    """What YAML reads a scalar as, where hardly anybody would."""
    if node.style or node.tag == f"{_TAG}str":
        return None
    number = node.tag in (f"{_TAG}int", f"{_TAG}float")
    octal = node.tag == f"{_TAG}int" and _OCTAL.fullmatch(node.value)
    point = node.tag == f"{_TAG}timestamp" and not _DATE.fullmatch(node.value)
    if (number and ":" in node.value) or octal or point:
        return str(_value(node))
    return None


def _value(node: yaml.Node) -> Any:
    """What a node says; keys are text, as they are written.

    Raises
    ------
    UserError: a scalar can't be read, such as a date with a 13th month.
    """
    constructor = yaml.constructor.SafeConstructor()
    if isinstance(node, yaml.MappingNode):
        try:
            constructor.flatten_mapping(node)
        except yaml.YAMLError as error:
            raise UserError(
                f"the merge (<<) in line {_line(node)} can't be done: "
                f"{_reason(error)}; write the keys."
            ) from error
        return {_text(key): _value(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    try:
        return constructor.construct_object(node)
    except (ValueError, OverflowError, yaml.YAMLError) as error:
        raise UserError(
            f"{node.value[:80]} in line {_line(node)} can't be read: "
            f"{str(error).splitlines()[0]}; put it into quotes."
        ) from error


def as_written(raw: Mapping[str, Any], files: list[Written]) -> dict[str, Any]:
    """A configuration that a reader of YAML made, with the names in it as they are written.

    raw: the files' values, one over the other, with what the command line says; a name that looks
    like a number is a number in it, and of two that are the same number one is lost.
    """
    found = dict(raw)
    for place in NAMES:
        *above, last = place.split(".")
        parent: Any = found
        for key in above:
            if isinstance(parent.get(key), Mapping):
                parent[key] = dict(parent[key])
            parent = parent.get(key)
            if not isinstance(parent, dict):
                break
        if isinstance(parent, dict) and isinstance(parent.get(last), Mapping):
            parent[last] = _with_names(parent[last], _names(files, place))
    return found


def _names(files: list[Written], place: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for file in files:
        value: Any = file.value
        for key in place.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        names |= value if isinstance(value, Mapping) else {}
    return names


def _with_names(read: Mapping, written: Mapping[str, Any]) -> dict:
    found: dict[Any, Any] = {}
    for key, value in read.items():
        names = [] if isinstance(key, str) else [name for name in written if _same(name, key)]
        for name in names:
            found[name] = value if len(names) == 1 else written[name]
        if not names:
            found[key] = value
    return found


def _same(name: str, key: Any) -> bool:
    try:
        value = yaml.safe_load(name)
    except (yaml.YAMLError, ValueError):
        return False
    return type(value) is type(key) and value == key


def plain(value: Any, depth: int = 0) -> Any:
    """Plain containers, whatever a reader used; text for dates, other keys and what isn't finite.

    Raises
    ------
    UserError: it is nested too deeply.
    """
    if depth > DEEPEST:
        raise UserError(
            f"The configuration is nested more than {DEEPEST} levels deep, or holds itself; no setting "
            "is."
        )
    if isinstance(value, Mapping):
        return {_key(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)


def _key(key: Any) -> str:
    if isinstance(key, datetime.date):
        raise UserError(
            f'The configuration has the date {key} for a name; put it into quotes: "{key}".'
        )
    return {True: "true", False: "false", None: "null"}.get(key, str(key)) if (
        key is None or isinstance(key, bool)) else str(key)  # fmt: skip
