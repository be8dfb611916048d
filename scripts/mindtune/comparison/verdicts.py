"""One rule for all verdicts: which metric they rest on, and when which word is said."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import pandas as pd

from mindtune.comparison.metrics import Metric
from mindtune.comparison.text import words

BETTER, WORSE, AS_GOOD, OPEN = "better", "worse", "as good", "can't tell"
SHORT = 12  # words of a reference that can be expected to be given exactly


@dataclass(frozen=True)
class Rule:
    """confidence: of all intervals, and the tests' level with it. primary: name of the metric.

    margin: the difference that counts as none, as a share of the greatest possible score.
    """

    confidence: float
    primary: str
    margin: float

    @property
    def judged(self) -> tuple[str, ...]:
        """The metrics that have a verdict, for which p is corrected; the rest is to be looked at."""
        return tuple(dict.fromkeys((self.primary, "exact", "content")))

    def verdict(self, found: Mapping, p: float, metric: Metric) -> str:
        """`better`, `worse`, `as good` or `can't tell` of a difference with `low` and `high`.

        p: corrected for all that is judged together. A difference is reported where p is below the
        level and the interval keeps clear of zero; `as good` where the whole interval lies
        within the margin.
        """
        if p < 1 - self.confidence and not found["low"] <= 0 <= found["high"]:
            higher = found["difference"] > 0
            return BETTER if higher == (metric.better == "higher") else WORSE
        margin = self.margin * metric.most
        return AS_GOOD if -margin <= found["low"] and found["high"] <= margin else OPEN


def rule_of(params, compared: pd.DataFrame) -> Rule:
    """The rule of a job whose params have the keys of the section `compare`."""
    primary = primary_metric(compared, params.primary_metric)
    return Rule(params.confidence, primary, params.equivalence_margin)


def primary_metric(compared: pd.DataFrame, chosen: str | None) -> str:
    """The configured metric, or else the default, which knows references and no answer.

    Exact match where held-out references (all, when nothing is held out) have SHORT words or
    fewer by median: a longer one is hardly ever given to the word. chrF otherwise.
    """
    if chosen is not None:
        return chosen
    known = compared[compared["reference"].notna()].drop_duplicates("id")
    held_out = known[known["split"] == "held_out"]
    judged = held_out if len(held_out) else known
    lengths = [len(words(reference)) for reference in judged["reference"]]
    return "exact" if not lengths or median(lengths) <= SHORT else "chrf"
