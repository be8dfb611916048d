"""What an answer says, whatever its form: how much of the reference is found in it.

The reference's key words, numbers and boxes are its units. A word or number is found or not; a
box counts by its overlap (intersection over union) with the answer's nearest box. Order, grammar
and whatever else an answer says have no effect: the score is a recall and no proof of truth.
"""

import re
from collections.abc import Sequence

from mindtune.comparison.text import BOX, boxes, exact, folded, words

# Words that hold a sentence together; "no", "not" and numbers say something and are none of these.
STOP_WORDS = frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "those",
        "it",
        "its",
        "he",
        "she",
        "they",
        "them",
        "his",
        "her",
        "their",
        "there",
        "here",
        "and",
        "or",
        "but",
        "of",
        "in",
        "on",
        "at",
        "to",
        "from",
        "by",
        "with",
        "for",
        "as",
        "into",
        "onto",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "am",
        "do",
        "does",
        "did",
        "has",
        "have",
        "had",
        "can",
        "could",
        "will",
        "would",
        "may",
        "might",
        "should",
        "which",
        "who",
        "whom",
        "what",
        "where",
        "when",
        "how",
        "why",
        "so",
        "such",
        "very",
        "也",
        "的",
        "了",
        "是",
        "在",
        "有",
        "着",
        "和",
        "与",
        "及",
        "而",
        "就",
        "都",
        "这",
        "那",
        "它",
        "他",
        "她",
        "们",
        "个",
        "里",
        "中",
        "上",
        "地",
        "得",
        "一个",
        "吗",
        "呢",
        "啊",
    ]
)
NUMBERS = {
    **{
        word: str(value)
        for value, word in enumerate(
            [
                "zero",
                "one",
                "two",
                "three",
                "four",
                "five",
                "six",
                "seven",
                "eight",
                "nine",
                "ten",
                "eleven",
                "twelve",
                "thirteen",
                "fourteen",
                "fifteen",
                "sixteen",
                "seventeen",
                "eighteen",
                "nineteen",
                "twenty",
            ]
        )
    },
    **{sign: str(value) for value, sign in enumerate("零一二三四五六七八九十")},
    "两": "2",
}
_SEPARATED = re.compile(r"(?<=\d),(?=\d{3}\b)")
Box = tuple[int, int, int, int]


def units(text: str) -> list[str]:
    """The words and numbers of a text outside its boxes: plain, singular, numbers as digits."""
    plain = _SEPARATED.sub("", BOX.sub(" ", folded(text)))
    return [NUMBERS.get(word, _singular(word)) for word in words(plain)]


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def key_words(reference: str, question: str) -> list[str]:
    """What a reference adds to its question: no stop words, and no word of the question.

    All that is left of it when this is nothing: first without stop words only, then all words.
    """
    said = list(dict.fromkeys(units(reference)))
    told = [word for word in said if word not in STOP_WORDS]
    asked = set(units(question))
    return [word for word in told if word not in asked] or told or said


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes (left, top, right, bottom), 0 to 1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0, width) * max(0, height)
    return shared / (_area(one) + _area(other) - shared)


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def content(answer: str, reference: str, question: str = "") -> float:
    """The share of the reference's content that an answer holds, 0 to 1.

    Where the reference points with a box, its boxes count and the words around them do not:
    they name what was asked about.
    """
    wanted = boxes(reference)
    if wanted:
        found = boxes(answer)
        return sum(max((overlap(box, one) for one in found), default=0.0) for box in wanted) / len(
            wanted
        )
    keys = key_words(reference, question)
    if not keys:
        return float(bool(exact(answer, reference)))
    said = set(units(answer))
    return sum(word in said for word in keys) / len(keys)


def form(answer: str) -> str:
    """`box`, `words` or `empty`: how an answer is given."""
    if boxes(answer):
        return "box"
    return "words" if answer.strip() else "empty"


def forms_differ(before: Sequence[str], after: Sequence[str]) -> float:
    """The share of pairs of which one answer points with a box and the other is all words."""
    pairs = list(zip(before, after, strict=True))
    return sum({form(one), form(other)} == {"box", "words"} for one, other in pairs) / len(pairs)
