"""compare.csv and summary.csv, from files of answers.

No model is loaded here: answers are files, and everything said about them follows from them.
"""

import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from mindtune.comparison.statistics import wilson_interval
from mindtune.errors import UserError
from mindtune.files import writing

COMPARE_COLUMNS = (
    "experiment", "split", "family", "image", "image_in_training", "prompt", "reference", "before",
    "after", "exact_before", "exact_after", "changed",
)  # fmt: skip
ALL = "all"


def normalize(text: str) -> str:
    """What exact match compares: Unicode composed, white space folded, ends stripped."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def read_lines(path: Path) -> list[dict]:
    """The objects of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def compare_experiment(
    experiment: str, prompts: list[dict], before: list[dict], after: list[dict]
) -> pd.DataFrame:
    """A row per prompt, in the order of the prompts.

    `exact_*` is missing where there is no reference.

    Raises
    ------
    UserError: answers and prompts don't belong together.
    """
    rows = []
    for stage, answers in (("before", before), ("after", after)):
        if [answer["id"] for answer in answers] != [prompt["id"] for prompt in prompts]:
            raise UserError(
                f"the answers {stage} of experiment {experiment} are of other prompts; delete them "
                "and run the same command again."
            )
    for prompt, first, second in zip(prompts, before, after, strict=True):
        reference = prompt["reference"]
        rows.append(
            {
                "experiment": experiment,
                **{key: prompt[key] for key in ("split", "family", "image", "image_in_training")},
                "prompt": prompt["prompt"],
                "reference": reference,
                "before": first["answer"],
                "after": second["answer"],
                "exact_before": exact(first["answer"], reference),
                "exact_after": exact(second["answer"], reference),
                "changed": normalize(first["answer"]) != normalize(second["answer"]),
            }
        )
    return pd.DataFrame(rows, columns=COMPARE_COLUMNS).astype(
        {"exact_before": "boolean", "exact_after": "boolean"}
    )


def exact(answer: str, reference: str | None) -> bool | None:
    """Whether an answer is the reference, None when there is no reference."""
    return None if reference is None else normalize(answer) == normalize(reference)


def summarize(compared: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """A row per experiment, split and family, and one for all families: how many were right.

    n counts the prompts that have a reference. Shares have a Wilson interval.
    """
    judged = compared[compared["exact_after"].notna()]
    rows = []
    for (experiment, split), group in judged.groupby(["experiment", "split"], sort=False):
        families = [*sorted(group["family"].unique()), ALL]
        for family in families:
            part = group if family == ALL else group[group["family"] == family]
            row = {"experiment": experiment, "split": split, "family": family, "n": len(part)}
            for stage in ("before", "after"):
                right = int(part[f"exact_{stage}"].sum())
                low, high = wilson_interval(right, len(part), confidence)
                row |= {
                    f"exact_{stage}": right / len(part),
                    f"exact_{stage}_low": low,
                    f"exact_{stage}_high": high,
                }
            row["changed"] = float(part["changed"].mean())
            rows.append(row)
    return pd.DataFrame(rows)


def compare_all(experiments: Mapping[str, Mapping[str, Path]]) -> pd.DataFrame:
    """The rows of all experiments; each is given as the paths `prompts`, `before`, `after`."""
    frames = [
        compare_experiment(
            name, *(read_lines(files[key]) for key in ("prompts", "before", "after"))
        )
        for name, files in experiments.items()
    ]
    return pd.concat(frames, ignore_index=True)


def to_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as everybody reads it: UTF-8, commas, line feeds, true and false in words."""
    shown = frame.copy()
    for column in shown:
        if shown[column].dtype in ("bool", "boolean"):
            shown[column] = shown[column].map({True: "true", False: "false"})
    with writing(path) as handle:
        shown.to_csv(handle, index=False, lineterminator="\n", float_format="%.4f")
