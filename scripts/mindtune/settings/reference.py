"""Reference pages that are made from what they describe, so that they can't drift from it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from mindtune.settings.section import item_model

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
    """A key of the configuration.

    schema: its JSON Schema. default: JSON, or None where it must be given. description, chinese:
    its meaning.
    """

    name: str
    schema: Mapping
    description: str
    chinese: str
    default: str | None
    is_section: bool


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """All keys of a model, depth first, as dotted names; `[]` stands for a list's items."""
    nodes = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        below, is_list = item_model(field.annotation), get_origin(field.annotation) is list
        is_section = below is not None and not is_list
        within = "experiments.NAME." if field.json_schema_extra.get("in_experiments") else ""
        yield Key(
            prefix + within + name,
            {"type": "object"} if is_section else nodes[name],
            field.description or "",
            field.json_schema_extra["zh"],
            None if field.is_required() else _default(field),
            is_section,
        )
        if below:
            yield from keys(below, f"{prefix}{name}{'[]' if is_list else ''}.")


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    return json.dumps(to_jsonable_python(value), ensure_ascii=False)


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
        f"{sign} {schema[limit]}"
        for limit, sign in (
            ("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"),
        )
        if limit in schema
    ]  # fmt: skip
    return ", ".join([text, *limits])


def config_reference(model: type[BaseModel], intro: str, language: str = "en") -> str:
    """A page with a table of keys per section."""
    names = _NAMES[language]
    head = [f"| {' | '.join(names['head'])} |", "| --- | --- | --- | --- |"]
    rows: dict[str, list[str]] = {}
    for key in keys(model):
        section = key.name.split(".")[0]
        meaning = key.description if language == "en" else key.chinese
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
    """A table of known faults: a name, and the sentence that is reported."""
    rows = [f"| {name} | {sentence.replace('|', chr(92) + '|')} |" for name, sentence in faults]
    return "\n".join(["| fault | what is reported |", "|---|---|", *rows])


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


def conda_environment(lock: str) -> str:
    """A conda environment with the pins of envs/hf.lock.txt, for `--software-deployment-method conda`.

    The pins are in the file itself: Snakemake copies it elsewhere and hashes nothing but it.
    """
    pins = [line for line in lock.splitlines() if line and not line.startswith("#")]
    return "\n".join(
        [
            "# Made from hf.lock.txt by `python scripts/write_reference.py`; change that file, not this one.",
            "channels: [conda-forge, nodefaults]",
            "dependencies:",
            "  - python=3.11",
            "  - pip",
            "  - pip:",
            *(f"      - {pin}" for pin in pins),
            "",
        ]
    )
