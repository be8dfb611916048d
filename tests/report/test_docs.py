"""Documentation that can't drift, and is there in both languages."""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import write_reference
import yaml
from jsonschema import Draft202012Validator
from mindtune.comparison.contract import COMPARE, SUMMARY, control_columns
from mindtune.comparison.metrics import METRICS
from mindtune.comparison.text import HAN
from mindtune.settings import Settings
from mindtune.settings.reference import filled, keys, reexecution_table
from mindtune.settings.sections.train import Train

DOCS = write_reference.ROOT / "docs"
CONFIG = write_reference.ROOT / "config"
PAGES = (
    "tutorial.md", "howto.md", "explanation.md", "outputs.md", "config.md", "installation.md",
    "interruptions.md",
    "clusters.md", "scaling.md", "performance.md", "errors.md",
)  # fmt: skip
KEYS = list(keys(Settings))


@pytest.fixture(scope="module")
def pages():
    return write_reference.pages()


def test_made_pages_are_up_to_date(pages):
    old = [
        str(path.relative_to(write_reference.ROOT))
        for path, text in pages.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    assert old == [], f"run: python scripts/write_reference.py (out of date: {', '.join(old)})"


def test_a_changed_model_is_noticed(pages, monkeypatch):
    monkeypatch.setattr(Train.model_fields["lr"], "default", 2.0e-5)
    changed = [path.name for path, text in write_reference.pages().items() if text != pages[path]]
    assert changed == ["config.md", "config.md"]


def test_the_schemas_for_editors_are_schemas_and_the_shipped_files_fit_them():
    for name, schema in (
        ("*.yaml", "schema.json"),
        ("data_sources.yaml", "data_sources.schema.json"),
    ):
        validator = Draft202012Validator(json.loads((CONFIG / schema).read_text("utf-8")))
        validator.check_schema(validator.schema)
        files = [
            file
            for file in CONFIG.glob(name)
            if (file.name == "data_sources.yaml") == (name != "*.yaml")
        ]
        assert files
        for file in files:
            text = file.read_text(encoding="utf-8")
            assert text.startswith(f"# yaml-language-server: $schema={schema}\n"), file
            assert list(validator.iter_errors(yaml.safe_load(text))) == []
    wrong = {"train": {"lr": "fast", "trian_iters": 3}, "experiments": {"a": {"train": {"lr": 7}}}}
    validator = Draft202012Validator(json.loads((CONFIG / "schema.json").read_text("utf-8")))
    assert len(list(validator.iter_errors(wrong))) == 3


def test_a_changed_table_of_what_runs_again_is_noticed():
    table = yaml.safe_load((write_reference.ROOT / write_reference.RERUNS).read_text("utf-8"))
    for name, language in write_reference.READMES.items():
        text = (write_reference.ROOT / name).read_text(encoding="utf-8")
        assert reexecution_table(table, language) in text
    before = reexecution_table(table)
    assert "| `answer.*` | answer_prompts (before, after), compare_answers |" in before
    table["edits"]["answer.batch_size"]["runs"] = ["compare_answers"]
    rest = "| `answer.max_new_tokens`, `answer.tokens_per_batch` | answer_prompts (before, after)"
    assert rest in reexecution_table(table)


def test_every_key_has_a_description_in_english_and_chinese():
    assert [key.name for key in KEYS if not key.description] == []
    lacking = [key.name for key in KEYS if not HAN.search(key.chinese)]
    assert lacking == [], f"say in Chinese: {', '.join(lacking)}"


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_there_in_chinese(name):
    english = (DOCS / name).read_text(encoding="utf-8")
    chinese = (DOCS / "zh" / name).read_text(encoding="utf-8")
    assert len(HAN.findall(chinese)) > 300
    depths = [
        [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]
        for text in (english, chinese)
    ]
    assert depths[0] == depths[1]


def test_both_readmes_have_the_same_commands_and_links():
    english, chinese = (
        (write_reference.ROOT / name).read_text(encoding="utf-8")
        for name in ("README.md", "README.zh-CN.md")
    )
    commands = re.findall(r"```sh\n(.*?)```", english, re.DOTALL)
    assert len(commands) >= 2
    assert [command for command in commands if command not in chinese] == []
    rules = re.findall(r"^\| ([a-z]+_[a-z_]+) \|", english, re.MULTILINE)
    assert [rule for rule in rules if f"| {rule} |" not in chinese] == []
    for target in re.findall(r"\]\(([^):#]+)\)", chinese):
        assert (write_reference.ROOT / target).exists(), target


def test_outputs_names_every_column_and_metric():
    contracts = [found for one in (COMPARE, SUMMARY) for found in (one, control_columns(one))]
    columns = [name for contract in contracts for name in contract.columns]
    columns += [metric.name for metric in METRICS]
    for place in ("outputs.md", "zh/outputs.md"):
        text = (DOCS / place).read_text(encoding="utf-8")
        assert [name for name in columns if f"`{name}`" not in text] == []


def test_errors_are_quoted_as_the_program_says_them():
    quotes = [quote for section in rows_of_errors("errors.md") for row in section for quote in row]
    assert [quote for quote in quotes if not is_said(quote)] == []
    assert len(set(quotes)) == len(quotes)
    # The check itself: values and whole words count, and docstrings don't.
    assert is_said("is …, but must be")
    assert not is_said("but must be is …,")
    assert not is_said("is not a banana; did you mean")
    assert not is_said("nothing half-written ever looks whole")


def test_errors_are_the_same_in_both_languages():
    assert rows_of_errors("errors.md") == rows_of_errors("zh/errors.md")
    for row in error_rows((DOCS / "zh/errors.md").read_text("utf-8")):
        assert all(HAN.search(cell) or is_code(cell) for cell in row[1:]), row


def rows_of_errors(page: str) -> list[list[list[str]]]:
    """For each section of a page of errors and each row of its table, what is quoted in backticks."""
    sections = (DOCS / page).read_text("utf-8").split("\n## ")[1:]
    found = [
        [re.findall(r"`([^`]+)`", row[0]) for row in error_rows(section)] for section in sections
    ]
    assert all(found) and all(row for section in found for row in section)
    return found


def error_rows(text: str) -> list[list[str]]:
    """The cells of the rows of all tables in a text, without the tables' heads."""
    lines = re.findall(r"^\| (.+) \|$", text, re.MULTILINE)
    rows = [re.split(r" (?<!\\)\| ", line) for line in lines]
    assert {len(row) for row in rows} == {3}
    return [row for row in rows if row[0] not in ("you see", "看到的句子")]


def is_code(cell: str) -> bool:
    return re.fullmatch(r"`[^`]+`", cell) is not None


def is_said(quote: str) -> bool:
    """Whether the words of a quote, in their order, are in one text of the program's source."""
    return any(in_order(quote.split("…"), text) for text in texts_of_the_source())


def in_order(pieces: list[str], text: str) -> bool:
    place = 0
    for piece in pieces:
        place = text.find(piece, place)
        if place < 0:
            return False
        place += len(piece)
    return True


@cache
def texts_of_the_source() -> tuple[str, ...]:
    """Every text in scripts/, with `…` for the values that are filled in."""
    files = sorted((write_reference.ROOT / "scripts").rglob("*.py"))
    return tuple(text for file in files for text in texts(ast.parse(file.read_text("utf-8"))))


def texts(node: ast.AST) -> Iterator[str]:
    """The texts in a piece of source; docstrings, which nobody is shown, are not among them."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)):
            yield from texts(child)


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda p: str(p.relative_to(DOCS)))
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if "://" in target:
            continue
        place, _, anchor = target.partition("#")
        linked = (page.parent / place).resolve() if place else page
        assert linked.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [
                re.sub(r"[^\w\s-]", "", head).lower().replace(" ", "-") for head in heads
            ]


def test_examples_of_settings_are_valid_yaml():
    for page in Path(DOCS).rglob("*.md"):
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            known = {key.name for key in KEYS if "." not in key.name}
            assert set(yaml.safe_load(block)) <= known


def test_a_page_is_filled_between_its_marks():
    page = "a\n<!-- made: t -->\nold\n<!-- end -->\nb\n"
    once = filled(page, {"t": "new"})
    assert once == "a\n<!-- made: t -->\nnew\n<!-- end -->\nb\n" == filled(once, {"t": "new"})
