"""Every answer's score by every metric, what the scores come to, and which experiment is best."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from sacrebleu.metrics import CHRF

from mindtune.comparison.answers import read_answers
from mindtune.comparison.metrics import BY_NAME, METRICS, SHARE, Metric, bleu_scorer
from mindtune.comparison.statistics import Difference, compare_means, compare_shares
from mindtune.comparison.tables import groups
from mindtune.comparison.text import language, tidy

IMPROVED, WORSE, UNCHANGED, CHANGED = "improved", "worse", "unchanged", "changed"
CHRF_MARGIN = 1.0

_TYPES = {
    f"{metric.name}_{stage}": "boolean" if metric.kind == SHARE else "Float64"
    for metric in METRICS
    for stage in ("before", "after")
}
_EMPTY = {column: [""] for column in _TYPES}


def read_scores(paths: Iterable[Path]) -> pd.DataFrame:
    """The rows of several scores.csv, one after the other."""
    texts = dict.fromkeys(("experiment", "id", "split", "family", "image"), str)
    frames = [
        pd.read_csv(path, dtype=_TYPES | texts, keep_default_na=False, na_values=_EMPTY)
        for path in paths
    ]
    return pd.concat(frames, ignore_index=True)


def read_metrics(path: Path) -> pd.DataFrame:
    """The rows of metrics.csv; only a corpus score may be missing."""
    texts = dict.fromkeys(("experiment", "split", "family", "metric", "better", "says"), str)
    empty = {"corpus_before": [""], "corpus_after": [""]}
    return pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=empty)


def score_experiment(experiment: str, files: Mapping[str, Path]) -> pd.DataFrame:
    """A row per prompt with `<metric>_before` and `<metric>_after`, and a verdict."""
    rows = []
    for prompt, first, second in read_answers(experiment, **files):
        reference = prompt["reference"]
        row = {
            "experiment": experiment,
            **{key: prompt[key] for key in ("id", "split", "family", "image")},
            "language": language(reference, prompt["prompt"]),
        }
        for metric in METRICS:
            for stage, line in (("before", first), ("after", second)):
                row[f"{metric.name}_{stage}"] = metric.of(line, reference)
        row["verdict"] = verdict(row, tidy(first["answer"]) != tidy(second["answer"]))
        rows.append(row)
    return pd.DataFrame(rows).astype(_TYPES)


def verdict(row: Mapping, changed: bool) -> str:
    """Whether an answer got better: by exact match, and where that is equal by chrF."""
    if not changed:
        return UNCHANGED
    if row["chrf_before"] is None:
        return CHANGED
    if row["exact_before"] != row["exact_after"]:
        return IMPROVED if row["exact_after"] else WORSE
    gain = row["chrf_after"] - row["chrf_before"]
    if row["exact_after"] or abs(gain) < CHRF_MARGIN:
        return UNCHANGED
    return IMPROVED if gain > 0 else WORSE


def summarize_scores(scores: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """A row per experiment, split, family and metric: before, after, and their difference."""
    rows = []
    for experiment, split, family, part in groups(scores):
        for metric in METRICS:
            found = _difference(part, metric, confidence)
            if found is not None:
                rows.append(
                    {
                        "experiment": experiment,
                        "split": split,
                        "family": family,
                        "metric": metric.name,
                        "better": metric.better or "",
                        **vars(found),
                        "says": in_words(found, metric.better, 1 - confidence),
                    }
                )
    return pd.DataFrame(rows)


def _difference(part: pd.DataFrame, metric: Metric, confidence: float) -> Difference | None:
    before, after = f"{metric.name}_before", f"{metric.name}_after"
    part = part[part[before].notna() & part[after].notna()]
    if part.empty:
        return None
    compare = compare_shares if metric.kind == SHARE else compare_means
    return compare(part[before], part[after], part["image"], confidence)


def in_words(found: Difference, better: str | None, alpha: float) -> str:
    """`better`, `worse`, `higher`, `lower`, or that there is no telling."""
    if found.p >= alpha or found.low <= 0 <= found.high:
        return "no difference"
    higher = found.difference > 0
    if better is None:
        return "higher" if higher else "lower"
    return "better" if higher == (better == "higher") else "worse"


def corpus_scores(compared: pd.DataFrame) -> pd.DataFrame:
    """chrF and BLEU of all answers of a group as one text, the way papers give them."""
    rows = []
    for experiment, split, family, part in groups(compared[compared["reference"].notna()]):
        references = [part["reference"].tolist()]
        scorers = {"chrf": CHRF(), "bleu": bleu_scorer(language(*references[0]))}
        for name, scorer in scorers.items():
            rows.append(
                {
                    "experiment": experiment,
                    "split": split,
                    "family": family,
                    "metric": name,
                    **{
                        f"corpus_{stage}": scorer.corpus_score(
                            part[stage].tolist(), references
                        ).score
                        for stage in ("before", "after")
                    },
                }
            )
    columns = ["experiment", "split", "family", "metric", "corpus_before", "corpus_after"]
    return pd.DataFrame(rows, columns=columns)


def rank(scores: pd.DataFrame, experiments: Sequence[str], confidence: float) -> list[dict]:
    """Experiments by their held-out answers after fine-tuning, the best first.

    By exact match, or by chrF where nobody is ever exact (long answers). Each is compared with
    the best one on the prompts that both answered; `tied` says that the two can't be told apart,
    and `behind` is None when they have no prompt in common.
    """
    asked = scores[scores["split"] == "held_out"]
    judged = asked if len(asked) else scores
    judged = judged[judged["exact_after"].notna()]
    if judged.empty:
        return []
    name = "exact" if judged["exact_after"].any() else "chrf"
    column, metric = f"{name}_after", BY_NAME[name]
    values = {
        one: judged[judged["experiment"] == one].set_index("id")[[column, "image"]]
        for one in experiments
    }
    order = sorted(experiments, key=lambda one: -values[one][column].mean())
    ranked = []
    for one in order:
        other = values[one][column].rename("other")
        pair = values[order[0]].join(other, how="inner")
        compare = compare_shares if metric.kind == SHARE else compare_means
        found = None
        if len(pair):
            found = compare(pair[column], pair["other"], pair["image"], confidence)
        ranked.append(
            {
                "experiment": one,
                "metric": name,
                "n": len(values[one]),
                "value": float(values[one][column].mean()),
                "behind": found,
                "tied": found is not None
                and one != order[0]
                and in_words(found, metric.better, 1 - confidence) == "no difference",
            }
        )
    return ranked
