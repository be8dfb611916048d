"""Documentation that can't drift, and is there in both languages."""

import json
import re
from pathlib import Path

import pytest
import write_reference
import yaml
from jsonschema import Draft202012Validator
from mindtune.comparison.contract import COMPARE, SUMMARY
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
    "clusters.md", "scaling.md",
)  # fmt: skip
KEYS = list(keys(Settings))


def test_made_pages_are_up_to_date():
    old = [
        str(path.relative_to(write_reference.ROOT))
        for path, text in write_reference.pages().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    assert old == [], f"run: python scripts/write_reference.py (out of date: {', '.join(old)})"


def test_a_changed_model_is_noticed(monkeypatch):
    before = write_reference.pages()
    monkeypatch.setattr(Train.model_fields["lr"], "default", 2.0e-5)
    changed = [path.name for path, text in write_reference.pages().items() if text != before[path]]
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
    assert "| `answer.max_new_tokens` | answer_prompts (before, after)" in reexecution_table(table)


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
    columns = [*COMPARE.columns, *SUMMARY.columns, *(metric.name for metric in METRICS)]
    for place in ("outputs.md", "zh/outputs.md"):
        text = (DOCS / place).read_text(encoding="utf-8")
        assert [name for name in columns if f"`{name}`" not in text] == []


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
