"""What an answer is worth: the metrics, and the score of one answer by each of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from mindtune.comparison.text import exact, has_box, is_repetitive, language, words

SHARE, MEAN = "share", "mean"


@dataclass(frozen=True)
class Metric:
    """A column of scores: `of(line, reference)` is an answer's score, `line` being its record.

    better: `higher`, `lower`, or None where a difference is neither good nor bad.
    """

    name: str
    title: str
    kind: str
    better: str | None
    of: Callable[[Mapping, str | None], float | bool | None]


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
    Metric("exact", "Exact match", SHARE, "higher", _judged(exact)),
    Metric("chrf", "chrF", MEAN, "higher", _alike(chrf)),
    Metric("bleu", "BLEU", MEAN, "higher", _alike(bleu)),
    Metric("rouge_l", "ROUGE-L", MEAN, "higher", _alike(rouge_l)),
    Metric("words", "Length in words", MEAN, None, lambda line, _: len(words(line["answer"]))),
    Metric("box", "Has a box", SHARE, None, lambda line, _: has_box(line["answer"])),
    Metric("empty", "Empty", SHARE, "lower", lambda line, _: not line["answer"].strip()),
    Metric("repeated", "Repeats itself", SHARE, "lower", lambda ln, _: is_repetitive(ln["answer"])),
    Metric("cut", "Cut at max_new_tokens", SHARE, "lower", lambda line, _: bool(line["cut"])),
    Metric("tokens", "Tokens", MEAN, None, lambda line, _: line["tokens"]),
    Metric("seconds", "Seconds", MEAN, None, lambda line, _: line["seconds"]),
    Metric("tokens_per_second", "Tokens per second", MEAN, None, lambda line, _: _speed(line)),
)
BY_NAME = {metric.name: metric for metric in METRICS}


def _speed(line: Mapping) -> float | None:
    return line["tokens"] / line["seconds"] if line["seconds"] else None
