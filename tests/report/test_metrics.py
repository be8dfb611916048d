"""Metrics, against values worked out by hand and the libraries' own examples."""

import pytest
from mindtune.comparison.content import content, form, forms_differ, key_words, overlap
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
    assert words("有2个人, T恤") == ["有", "2", "个", "人", "t", "恤"]
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


@pytest.mark.parametrize(
    ("reference", "question", "keys"),
    [
        ("The color of the bus is red.", "What is the color of the bus?", ["red"]),
        ("There are two people near the van.", "How many people are near the van?", ["2"]),
        ("There are no people.", "How many people are there?", ["no"]),
        ("Yes.", "Is it a bus?", ["yes"]),
        ("The bus is there.", "Where is the bus?", ["bus"]),  # nothing new: its words, then
        ("It is.", "Is it?", ["it", "is"]),
        ("公交车是红色的。", "公交车是什么颜色？", ["红"]),
        ("1,200 large buses", "How many?", ["1200", "large", "buse"]),
        ("🙂", "How?", []),
    ],
)
def test_key_words_are_what_a_reference_adds(reference, question, keys):
    assert key_words(reference, question) == keys


@pytest.mark.parametrize(
    ("answer", "reference", "question", "wanted"),
    [
        ("Red", "The color of the bus is red.", "What is the color of the bus?", 1),
        (
            "the color of the bus(1,2),(3,4)",
            "The color of the bus is red.",
            "The color of the bus?",
            0,
        ),
        ("Blue", "The color of the bus is red.", "What is the color of the bus?", 0),
        ("2 people", "There are two people.", "How many people are there?", 1),
        ("有两辆", "有2辆。", "有几辆？", 1),
        (
            "a large advertisement",
            "There is a large advertisement for a drink.",
            "What is it?",
            2 / 3,
        ),
        ("(0,0),(100,100)", "the bus(0,0),(100,100)", "Where is the bus?", 1),
        ("here(50,0),(150,100)", "the bus(0,0),(100,100)", "Where is the bus?", 1 / 3),
        ("the bus", "the bus(0,0),(100,100)", "Where is the bus?", 0),
        ("（0，0），（100，100）", "(0,0),(100,100) and (500,500),(600,600)", "Where?", 1 / 2),
        ("🙂", "🙂", "How?", 1),
        ("", "🙂", "How?", 0),
    ],
)
def test_content_by_hand(answer, reference, question, wanted):
    assert content(answer, reference, question) == pytest.approx(wanted)
    line = {"answer": answer, "prompt": question}
    assert BY_NAME["content"].of(line, reference) == pytest.approx(wanted)
    assert BY_NAME["content"].of(line, None) is None


def test_the_reference_itself_has_all_of_its_content():
    for text in ("A bus.", "公交车", "the bus(0,0),(100,100)", "1,200", "🙂", "is it"):
        assert content(text, text, "Is it a bus?") == 1


def test_overlap_of_boxes_by_hand():
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert overlap((0, 0, 10, 10), (5, 5, 15, 15)) == pytest.approx(25 / 175)
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == overlap((0, 0, 1, 1), (5, 5, 6, 6)) == 0


def test_forms_of_answers():
    forms = [form(text) for text in ("the bus(1,2),(3,4)", "a bus", " ", "(9,9),(1,1)")]
    assert forms == ["box", "words", "empty", "words"]  # the last is no box within a picture
    pairs = (["(1,2),(3,4)", "a", "", "(1,2),(3,4)"], ["a", "b", "(1,2),(3,4)", "(1,2),(5,6)"])
    assert forms_differ(*pairs) == 1 / 4


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
