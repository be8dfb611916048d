"""The one table of the report's words, in each language."""

import re
import string

import pytest
from mindtune.comparison import scores
from mindtune.comparison.metrics import METRICS
from mindtune.comparison.scores import CHANGED, IMPROVED, UNCHANGED
from mindtune.comparison.tables import ALL
from mindtune.comparison.verdicts import AS_GOOD, BETTER, OPEN, WORSE
from mindtune.data.prompts import OTHER
from mindtune.report.words import ENGLISH, TABLES, Words

HAN = re.compile(r"[\u3400-\u9fff]")


def fields(text):
    return sorted({name for _, name, _, _ in string.Formatter().parse(text) if name})


@pytest.mark.parametrize("language", set(TABLES) - {"en"})
def test_all_languages_have_the_same_keys_and_values_to_fill_in(language):
    english, other = TABLES["en"], TABLES[language]
    assert list(other) == list(english)
    assert {key: fields(text) for key, text in other.items()} == {
        key: fields(text) for key, text in english.items()
    }
    assert all(text.strip() for table in (english, other) for text in table.values())


def test_the_english_table_is_english_and_the_chinese_one_chinese():
    assert [key for key, text in TABLES["en"].items() if HAN.search(text)] == []
    same = {key for key, text in TABLES["zh"].items() if text == TABLES["en"][key]}
    assert same <= {"metric.chrf", "metric.bleu", "metric.rouge_l"}


@pytest.mark.parametrize(
    ("group", "values"),
    [
        ("metric", {metric.name for metric in METRICS}),
        ("says", {AS_GOOD, BETTER, OPEN, WORSE}),
        ("outcome", {CHANGED, IMPROVED, UNCHANGED, scores.WORSE}),
        ("split", {"held_out", "named"}),
        ("family", {ALL, OTHER}),
    ],
)
def test_every_value_that_a_column_may_have_has_its_word(group, values):
    assert set(ENGLISH.group(group)) == values


def test_values_come_escaped_into_markup_alone():
    assert ENGLISH("provenance.commit_html", commit="<b>") == "commit <code>&lt;b&gt;</code>"
    assert ENGLISH("script.picture", name="<b>") == "Picture <b>"


def test_a_value_of_the_users_own_is_its_own_word():
    assert Words("zh").of("family", "all") == "全部"
    assert Words("zh").of("family", "color") == "color"
