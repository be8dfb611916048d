"""What an answer is worth: the metrics, and the score of one answer by each of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from mindtune.comparison.content import content
from mindtune.comparison.text import exact, has_box, is_repetitive, language, words

SHARE, MEAN, CLOCK = "share", "mean", "clock"


@dataclass(frozen=True)
class Metric:
    """A column of scores: `of(line, reference)` is an answer's score.

    `line` is the answer's record, with its `prompt`.

    kind: `share` of answers, `mean` of a score, or `clock`: measured times, which all answers of
    a batch have in common, so that they have medians and neither intervals nor tests.
    better: `higher`, `lower`, or None where a difference is neither good nor bad.
    most: the greatest possible score where 0 is the least, None for no limit.
    """

    name: str
    kind: str
    better: str | None
    of: Callable[[Mapping, str | None], float | bool | None]
    most: float | None = None

    @property
    def in_percent(self) -> bool:
        return self.most == 1


class _Words:
    """rouge-score's own tokenizer knows only a to z; this one knows Chinese too."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


@cache
def bleu_scorer(tongue: str) -> BLEU:
    return BLEU(effective_order=True, tokenize="zh" if tongue == "zh" else "13a")


@cache
def _chrf() -> CHRF:
    return CHRF()


@cache
def _rouge() -> RougeScorer:
    return RougeScorer(["rougeL"], tokenizer=_Words())


def chrf(answer: str, reference: str) -> float:
    return _chrf().sentence_score(answer, [reference]).score


def bleu(answer: str, reference: str) -> float:
    return bleu_scorer(language(reference)).sentence_score(answer, [reference]).score


def rouge_l(answer: str, reference: str) -> float:
    return 100 * _rouge().score(reference, answer)["rougeL"].fmeasure


def _content(line: Mapping, reference: str | None) -> float | None:
    return None if reference is None else content(line["answer"], reference, line["prompt"])


def _judged(function: Callable[[str, str], float]) -> Callable:
    return lambda line, reference: (
        None if reference is None else function(line["answer"], reference)
    )


def _alike(function: Callable[[str, str], float]) -> Callable:
    """The likeness, 0 to 100, also where a text without a word is right: then nothing else is."""

    def of(answer: str, reference: str) -> float:
        if words(reference):
            return function(answer, reference)
        return 100.0 if exact(answer, reference) else 0.0

    return _judged(of)


METRICS = (
    Metric("exact", SHARE, "higher", _judged(exact), 1),
    Metric("content", MEAN, "higher", _content, 1),
    Metric("chrf", MEAN, "higher", _alike(chrf), 100),
    Metric("bleu", MEAN, "higher", _alike(bleu), 100),
    Metric("rouge_l", MEAN, "higher", _alike(rouge_l), 100),
    Metric("words", MEAN, None, lambda line, _: len(words(line["answer"]))),
    Metric("box", SHARE, None, lambda line, _: has_box(line["answer"]), 1),
    Metric("empty", SHARE, "lower", lambda line, _: not line["answer"].strip(), 1),
    Metric(
        "repeated",
        SHARE,
        "lower",
        lambda line, _: is_repetitive(line["answer"]),
        1,
    ),
    Metric("cut", SHARE, "lower", lambda line, _: bool(line["cut"]), 1),
    Metric("tokens", MEAN, None, lambda line, _: line["tokens"]),
    Metric("seconds", CLOCK, None, lambda line, _: line["seconds"]),
    Metric("tokens_per_second", CLOCK, None, lambda line, _: _speed(line)),
)
BY_NAME = {metric.name: metric for metric in METRICS}


def _speed(line: Mapping) -> float | None:
    return line["tokens"] / line["seconds"] if line["seconds"] else None
