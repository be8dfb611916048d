"""Every answer's score by every metric, what the scores come to, and which experiment is best."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import pandas as pd
from sacrebleu.metrics import CHRF

from mindtune.comparison.answers import count_pictures, read_answers, together
from mindtune.comparison.controls import summarize_control
from mindtune.comparison.metrics import BY_NAME, CLOCK, METRICS, SHARE, Metric, bleu_scorer
from mindtune.comparison.stages import CONTROLS, STAGES, controls_of
from mindtune.comparison.statistics import compare, exchange_tests
from mindtune.comparison.tables import ALL, groups
from mindtune.comparison.text import language, tidy
from mindtune.comparison.verdicts import Rule

IMPROVED, WORSE, UNCHANGED, CHANGED = "improved", "worse", "unchanged", "changed"
CHRF_MARGIN = 1.0
METRICS_COLUMNS = (
    "experiment", "split", "family", "metric", "better", "primary", "n", "pictures", "before",
    "after", "difference", "low", "high", "p", "p_adjusted", "says",
)  # fmt: skip

CONTROL_NUMBERS = tuple(
    f"{control}_{key}" for control in CONTROLS for key in (*STAGES, "seen", "seen_low", "seen_high")
)

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
    """The rows of metrics.csv."""
    texts = dict.fromkeys(("experiment", "split", "family", "metric", "better", "says"), str)
    numbers = ("difference", "low", "high", "p", "p_adjusted", "corpus_before", "corpus_after")
    empty = {key: [""] for key in (*numbers, *CONTROL_NUMBERS)}
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
                asked = {**line, "prompt": prompt["prompt"]}
                row[f"{metric.name}_{stage}"] = metric.of(asked, reference)
        row["verdict"] = verdict(row, tidy(first["answer"]) != tidy(second["answer"]))
        rows.append(row)
    columns = ["experiment", "id", "split", "family", "image", "language", *_TYPES, "verdict"]
    return pd.DataFrame(rows, columns=columns).astype(_TYPES)


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


def summarize_scores(scores: pd.DataFrame, rule: Rule) -> pd.DataFrame:
    """A row per experiment, split, family and metric: before, after, and their difference.

    `p`, `p_adjusted` and `says` are there for `rule.judged` only, corrected for all rows of the
    split that have one; clocks have medians and nothing else.
    """
    scores = scores.assign(cluster=together(scores["image"]))
    rows = []
    for experiment, split, family, part in groups(scores):
        for metric in METRICS:
            row = _row(part, metric, rule)
            if row is not None:
                key = {"experiment": experiment, "split": split, "family": family}
                rows.append({**key, **row})
    for split in dict.fromkeys(row["split"] for row in rows):
        _judge([row for row in rows if row["split"] == split], scores, rule)
    return pd.DataFrame(rows, columns=list(METRICS_COLUMNS))


def _row(part: pd.DataFrame, metric: Metric, rule: Rule) -> dict | None:
    """A row without its judgement, None where no prompt has a score."""
    before, after = f"{metric.name}_before", f"{metric.name}_after"
    part = part[part[before].notna() & part[after].notna()]
    if part.empty:
        return None
    row = dict.fromkeys(METRICS_COLUMNS[3:])
    row |= {"metric": metric.name, "better": metric.better or "", "says": ""}
    row["primary"] = metric.name == rule.primary
    if metric.kind == CLOCK:
        medians = {stage: float(part[f"{metric.name}_{stage}"].median()) for stage in STAGES}
        return row | medians | {"n": len(part), "pictures": count_pictures(part["image"])}
    found = compare(part[before], part[after], part["cluster"], rule.confidence, metric.most)
    return row | vars(found) | {"pictures": count_pictures(part["image"])}


def _judge(rows: list[dict], scores: pd.DataFrame, rule: Rule) -> None:
    """Fill in p and verdict of the rows of a split that are judged, all of them together."""
    judged = [row for row in rows if row["metric"] in rule.judged]
    columns = [_gains(scores, row) for row in judged]
    for row, alone, corrected in zip(judged, *_tests(columns), strict=True):
        row["p"], row["p_adjusted"] = float(alone), float(corrected)
        row["says"] = rule.verdict(row, row["p_adjusted"], BY_NAME[row["metric"]])


def _gains(scores: pd.DataFrame, row: Mapping) -> pd.Series:
    """What the prompts of a row gained by its metric, in sum, by picture."""
    part = scores[(scores["experiment"] == row["experiment"]) & (scores["split"] == row["split"])]
    if row["family"] != ALL:
        part = part[part["family"] == row["family"]]
    before, after = (part[f"{row['metric']}_{stage}"].astype("Float64") for stage in STAGES)
    return (after - before).groupby(part["cluster"]).sum()


def _tests(columns: Sequence[pd.Series]) -> tuple[Sequence[float], Sequence[float]]:
    """p alone and p corrected of each column of gains by picture."""
    if not columns:
        return (), ()
    table = pd.concat(list(columns), axis=1).fillna(0.0).sort_index()
    return exchange_tests(table.to_numpy(dtype=float))


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


def all_metrics(scores: pd.DataFrame, compared: pd.DataFrame, rule: Rule) -> pd.DataFrame:
    """The rows of metrics.csv. scores: of all experiments. compared: compare.csv."""
    found = summarize_scores(scores, rule)
    for more in (corpus_scores(compared), control_scores(compared, rule)):
        if more is not None:
            found = found.merge(more, on=["experiment", "split", "family", "metric"], how="left")
    return found


def control_scores(compared: pd.DataFrame, rule: Rule) -> pd.DataFrame | None:
    """The controls' columns of metrics.csv, for the judged metrics; None where there is no control."""
    controls = controls_of(compared)
    if not controls:
        return None
    judged = compared[compared["reference"].notna()]
    judged = judged.assign(cluster=together(judged["image"]))
    rows = []
    for experiment, split, family, part in groups(judged):
        for name in rule.judged:
            row = {"experiment": experiment, "split": split, "family": family, "metric": name}
            for control in controls:
                found = summarize_control(
                    part, control, _score(name), rule.confidence, BY_NAME[name].most
                )
                row |= {f"{control}_{key}": value for key, value in found.items()}
            rows.append(row)
    return pd.DataFrame(rows)


def _score(name: str):
    of = BY_NAME[name].of
    return lambda answer, reference, prompt: of({"answer": answer, "prompt": prompt}, reference)


def rank(scores: pd.DataFrame, experiments: Sequence[str], rule: Rule) -> list[dict]:
    """Experiments by the primary metric of their held-out answers after fine-tuning.

    Each is compared with the best one on the prompts that both answered: `says` is a verdict of
    `rule` on it beside the best one, corrected for all pairs of experiments, since which one is
    best was seen first. `behind` and `says` are None when they have no prompt in common.
    """
    asked = scores[scores["split"] == "held_out"]
    judged = asked if len(asked) else scores
    column, metric = f"{rule.primary}_after", BY_NAME[rule.primary]
    judged = judged[judged[column].notna()]
    if judged.empty:
        return []
    judged = judged.assign(cluster=together(judged["image"]))
    values = {
        one: judged[judged["experiment"] == one].set_index("id")[[column, "cluster"]]
        for one in experiments
    }
    order = sorted(experiments, key=lambda one: -values[one][column].mean())
    pairs = {
        (one, other): values[one].join(values[other][column].rename("other"), how="inner")
        for one, other in combinations(order, 2)
    }
    gains = {
        key: (pair["other"].astype(float) - pair[column].astype(float))
        .groupby(pair["cluster"])
        .sum()
        for key, pair in pairs.items()
        if len(pair)
    }
    corrected = dict(zip(gains, _tests(list(gains.values()))[1], strict=True))
    ranked = []
    for one in order:
        key = (order[0], one)
        found = says = None
        if key in gains:
            pair = pairs[key]
            found = compare(
                pair[column], pair["other"], pair["cluster"], rule.confidence, metric.most
            )
            says = rule.verdict(vars(found), corrected[key], metric)
        ranked.append(
            {
                "experiment": one,
                "metric": rule.primary,
                "n": len(values[one]),
                "value": float(values[one][column].mean()),
                "behind": found,
                "says": says,
            }
        )
    return ranked
