"""What the page says of controls: the same questions with a grey picture, or with another one."""

from collections.abc import Mapping

import pandas as pd

from mindtune.comparison.metrics import BY_NAME, Metric
from mindtune.comparison.stages import CONTROLS
from mindtune.comparison.tables import ALL
from mindtune.comparison.verdicts import Rule
from mindtune.report.wording import scored, signed, span
from mindtune.report.words import Words


def seeing(
    metrics: pd.DataFrame, summary: pd.DataFrame, best: str, rule: Rule, words: Words
) -> dict | None:
    """The controls of a run by the primary metric; None where it has none.

    controls: their names. line: sentences about the experiment `best`. rows: by experiment, a row
    for each family, `all` first, with before, after and difference, and `blind` and so on: before,
    after, and the part of the difference that is seen, in words.
    """
    controls = [control for control in CONTROLS if f"{control}_seen" in metrics]
    mine = metrics[(metrics["split"] == "held_out") & (metrics["metric"] == rule.primary)]
    if not controls or mine.empty:
        return None
    metric = BY_NAME[rule.primary]
    rows: dict[str, list[dict]] = {}
    for row in sorted(mine.to_dict("records"), key=lambda row: row["family"] != ALL):
        shown = {
            **{key: row[key] for key in ("family", "n")},
            **{stage: scored(row[stage], metric) for stage in ("before", "after")},
        }
        for control in controls:
            shown[control] = {
                **{
                    stage: scored(row[f"{control}_{stage}"], metric)
                    for stage in ("before", "after")
                },
                "seen": span(_seen(row, control), metric, words),
            }
        rows.setdefault(row["experiment"], []).append(shown)
    of_best = mine[(mine["experiment"] == best) & (mine["family"] == ALL)].iloc[0].to_dict()
    levels = summary[
        (summary["experiment"] == best)
        & (summary["split"] == "held_out")
        & (summary["family"] == ALL)
    ]
    return {
        "controls": controls,
        "line": line(of_best, levels.iloc[0].to_dict(), controls, metric, words),
        "rows": rows,
    }


def line(row: Mapping, levels: Mapping, controls: list[str], metric: Metric, words: Words) -> str:
    """How good the answers after were with each picture, and which part of the gain is seen.

    row: of metrics.csv. levels: of summary.csv, whose intervals of shares go with exact match.
    """

    def level(control: str) -> str:
        said = scored(row[f"{control}_after" if control else "after"], metric)
        name = f"exact_{control}_after" if control else "exact_after"
        if metric.name != "exact":
            return said
        low, high = (scored(levels[f"{name}_{end}"], metric) for end in ("low", "high"))
        return words("number.interval", difference=said, low=low, high=high)

    comma = words("list.comma")
    return words(
        "seeing.line",
        metric=words(f"metric.{metric.name}"),
        own=level(""),
        others=comma.join(words(f"seeing.after.{one}", value=level(one)) for one in controls),
        difference=signed((100 if metric.in_percent else 1) * row["difference"]),
        points=words("number.points") if metric.in_percent else "",
        parts=comma.join(
            words(f"seeing.part.{one}", seen=span(_seen(row, one), metric, words))
            for one in controls
        ),
    )


def _seen(row: Mapping, control: str) -> dict:
    """The part of a difference that is seen, as `span` takes a difference."""
    return {
        "difference": row[f"{control}_seen"],
        "low": row[f"{control}_seen_low"],
        "high": row[f"{control}_seen_high"],
    }
