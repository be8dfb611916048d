"""Reference pages that are made from what they describe, so that they can't drift from it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mindtune.config.schema import resolve

_NAMES = {
    "en": {
        "head": ("Key", "Values", "Default", "Meaning"),
        "array": "list", "object": "mapping", "string": "text", "integer": "whole number",
        "number": "number", "boolean": "true or false", "null": "null", "needed": "must be given",
        "any": "any", "path": "path", "url": "address",
    },
    "zh": {
        "head": ("键", "取值", "默认值", "含义"),
        "array": "列表", "object": "映射", "string": "文本", "integer": "整数",
        "number": "数", "boolean": "true 或 false", "null": "null", "needed": "必填",
        "any": "任意", "path": "路径", "url": "网址",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Key:
    """A key of the configuration. default: JSON, or None where it must be given."""

    name: str
    schema: Mapping
    description: str
    default: str | None
    is_section: bool


def keys(schema: Mapping, root: Mapping | None = None, prefix: str = "") -> Iterator[Key]:
    """All keys of a JSON schema, depth first, as dotted names; `[]` stands for a list's items."""
    root = root or schema
    for name, child in schema.get("properties", {}).items():
        node = resolve(child, root)
        inner = node.get("properties")
        items = node.get("items", {})
        yield Key(
            prefix + name,
            node,
            " ".join(node.get("description", "").split()),
            json.dumps(node["default"], ensure_ascii=False) if "default" in node else None,
            bool(inner),
        )
        if inner:
            yield from keys(node, root, f"{prefix}{name}.")
        elif items.get("properties"):
            yield from keys(items, root, f"{prefix}{name}[].")


def values(schema: Mapping, language: str = "en") -> str:
    """What a key may be: its type and range, or its choices."""
    names = _NAMES[language]
    if "enum" in schema:
        return ", ".join(f"`{'null' if value is None else value}`" for value in schema["enum"])
    kinds = schema.get("type", "any")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    text = "/".join(
        names[schema.get("format", kind) if kind == "string" else kind] for kind in kinds
    )
    limits = [
        f"{sign} {schema[limit]:g}"
        for limit, sign in (
            ("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"),
        )
        if limit in schema
    ]  # fmt: skip
    return ", ".join([text, *limits])


def config_reference(
    schema: Mapping, intro: str, meanings: Mapping[str, str] | None = None, language: str = "en"
) -> str:
    """A page with a table of keys per section. meanings: descriptions in another language."""
    meanings = meanings or {}
    names = _NAMES[language]
    head = [f"| {' | '.join(names['head'])} |", "| --- | --- | --- | --- |"]
    rows: dict[str, list[str]] = {}
    for key in keys(schema):
        section = key.name.split(".")[0]
        meaning = meanings.get(key.name, key.description)
        table = rows.setdefault(section, [])
        if key.is_section and "." not in key.name:
            table[:0] = ["", meaning, "", *head]
            continue
        if not table:
            table += ["", *head]
        default = names["needed"] if key.default is None else f"`{key.default}`"
        if key.is_section:
            default = ""
        cells = (f"`{key.name}`", values(key.schema, language), default, meaning)
        table.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    parts = [intro.rstrip()]
    parts += ["\n".join([f"\n## {section}", *table]) for section, table in rows.items()]
    return "\n".join(parts) + "\n"


def column_table(contract) -> str:
    """A pandera schema's columns as a table."""
    lines = ["| Column | Type | Meaning |", "| --- | --- | --- |"]
    for name, column in contract.columns.items():
        kind = column.metadata["kind"] + (" (may be empty)" if column.nullable else "")
        lines.append(f"| `{name}` | {kind} | {column.description} |")
    return "\n".join(lines)


def filled(page: str, tables: Mapping[str, str]) -> str:
    """A page with each `<!-- made: NAME -->` … `<!-- end -->` filled with its table."""
    for name, table in tables.items():
        opening = f"<!-- made: {name} -->\n"
        before, rest = page.split(opening)
        page = f"{before}{opening}{table}\n<!-- end -->{rest.split('<!-- end -->', 1)[1]}"
    return page


_RERUN = {
    "en": {
        "head": ("if you edit", "these run again"), "and": ", ", "stages": ", ", "nothing": "nothing",
        "before": "before", "after": "after", "(": " (", ")": ")",
    },
    "zh": {
        "head": ("改动", "重新运行"), "and": "、", "stages": "、", "nothing": "什么也不跑",
        "before": "前", "after": "后", "(": "（", ")": "）",
    },
}  # fmt: skip


def fault_table(faults: Iterable[tuple[str, str]]) -> str:
    """A table of known faults: a name, and the sentence that is told."""
    rows = [f"| {name} | {sentence.replace('|', chr(92) + '|')} |" for name, sentence in faults]
    return "\n".join(["| fault | what is told |", "|---|---|", *rows])


def reexecution_table(table: Mapping, language: str = "en") -> str:
    """What an edit runs again, from tests/workflow/reexecution.yaml, a row for each set of rules."""
    words = _RERUN[language]
    rows: dict[str, list[str]] = {}
    for name, entry in _sections(table["edits"]).items():
        note = table["notes"].get(name, {}).get(language)
        runs = note or _rules(entry["runs"], words)
        rows.setdefault(runs, []).append(f"`{name}`")
    lines = [(words["and"].join(names), runs) for runs, names in rows.items()]
    for row in table["also"].values():
        says = row.get("says", {}).get(language)
        runs = _rules(row["runs"], words) + (words["("] + says + words[")"] if says else "")
        lines.append((row[language], runs))
    head = [f"| {' | '.join(words['head'])} |", "|---|---|"]
    return "\n".join([*head, *(f"| {edited} | {runs} |" for edited, runs in lines)])


def _sections(edits: Mapping[str, Mapping]) -> dict[str, Mapping]:
    """The edits, with one `section.*` for the keys of a section that run the same."""
    groups: dict[str, dict[str, Mapping]] = {}
    for key, entry in edits.items():
        groups.setdefault(key.rpartition(".")[0] or key, {})[key] = entry
    found: dict[str, Mapping] = {}
    for section, members in groups.items():
        first = next(iter(members.values()))
        alike = all(entry["runs"] == first["runs"] for entry in members.values())
        if alike and section != "sources":
            found[f"{section}.*"] = first
        else:
            found |= members
    return found


def _rules(names: list[str], words: Mapping[str, str]) -> str:
    """Rules as a list, the stages of one rule together."""
    stages: dict[str, list[str]] = {}
    for name in names:
        rule, _, stage = name.partition(" ")
        stages.setdefault(rule, []).extend([words[stage.strip("()")]] if stage else [])
    texts = [
        rule + (words["("] + words["stages"].join(of) + words[")"] if of else "")
        for rule, of in stages.items()
    ]
    return words["and"].join(texts) or words["nothing"]
