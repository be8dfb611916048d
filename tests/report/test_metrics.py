"""Metrics, against values worked out by hand and the libraries' own examples."""

import pytest
from mindtune.comparison.metrics import BY_NAME, bleu, chrf, rouge_l
from mindtune.comparison.text import exact, has_box, is_repetitive, language, normalize, words
from sacrebleu.metrics import BLEU, CHRF


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("A bus.", "a bus"),
        ("  A\n bus ", "A bus."),
        ("红色 的。", "红色的"),
        ("３", "3"),
        ("Cafe\u0301", "café"),
    ],
)
def test_exact_match_looks_past_the_form(answer, reference):
    assert exact(answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [("A bus", "The bus"), ("A bus, red.", "A bus red."), ("红色", "红"), ("", "a"), ("12", "1 2")],
)
def test_exact_match_does_not_look_past_the_words(answer, reference):
    assert not exact(answer, reference)


def test_without_a_reference_there_is_no_exact_match():
    assert exact("A bus.", None) is None
    assert BY_NAME["chrf"].of({"answer": "A bus."}, None) is None


def test_words_in_english_and_chinese():
    assert words("The driver’s red bus, 2-door.") == ["the", "driver’s", "red", "bus", "2-door"]
    assert words("公交车是 red 的。") == ["公", "交", "车", "是", "red", "的"]
    assert language("What?", None) == "en" and language("What?", "红") == "zh"
    assert normalize("A  B?!") == "a b"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("the feature can be seen on the back of the bus(139,42),(703,771)", True),
        ("( 139 , 42 ) , ( 703 , 771 )", True),
        ("（139，42），（703，771）", True),
        ("a bus (1, 2)", False),
        ("At (139,42) and (703,771)", False),
        ("", False),
    ],
)
def test_boxes(text, found):
    assert has_box(text) is found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a bus a bus a bus", True),
        ("very very very good", True),
        ("红红红", True),
        ("a bus a bus", False),
        ("a bus and a van and a tram", False),
        ("", False),
    ],
)
def test_repetition(text, found):
    assert is_repetitive(text) is found


def test_rouge_l_by_hand():
    # The example of rouge-score's README; the longest common subsequence is
    # "the quick brown jumps the", 5 of 8 and of 9 words.
    target = "The quick brown fox jumps over the lazy dog"
    prediction = "The quick brown dog jumps on the log."
    common, said, wanted = 5, 8, 9
    f = 2 * (common / said) * (common / wanted) / (common / said + common / wanted)
    assert rouge_l(prediction, target) == pytest.approx(100 * f)
    assert rouge_l("红色的车", "红的车") == pytest.approx(100 * 2 * (3 / 4) * 1 / (3 / 4 + 1))


def test_chrf_by_hand():
    # "ab" and "ac": 1 of 2 characters, 0 of 1 pairs; orders that neither text has don't count.
    # F is 1/2 for single characters and 0 for pairs: on average precision = recall = 1/4.
    assert chrf("ab", "ac") == pytest.approx(25.0)
    assert chrf("红色", "红绿") == pytest.approx(25.0)
    assert chrf("same", "same") == 100


def test_bleu_by_hand():
    # Precisions 4/4, 3/3, 2/2, 1/1 and a brevity penalty of exp(1 - 5/4).
    assert bleu("the bus is red", "the bus is red today") == pytest.approx(77.8801, abs=1e-3)
    assert bleu("这辆车是红色的", "这辆车是红色的") == pytest.approx(100)
    assert bleu("这辆车是红色的", "这辆车是绿色的") > 30  # as one word it would be 0


def test_corpus_scores_are_sacrebleus_published_example():
    # From sacrebleu's README.
    references = [
        ["The dog bit the man.", "It was not unexpected.", "The man bit him first."],
        ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."],
    ]
    system = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    assert BLEU().corpus_score(system, references).score == pytest.approx(48.53, abs=0.01)
    assert CHRF().corpus_score(system, references).score == pytest.approx(59.73, abs=0.01)


def test_timing():
    line = {"answer": "A bus.", "tokens": 12, "seconds": 0.5, "cut": False}
    assert BY_NAME["tokens_per_second"].of(line, None) == 24
    assert BY_NAME["tokens_per_second"].of(line | {"seconds": 0}, None) is None
