"""compare.csv and summary.csv, from files of answers.

No model is loaded here: answers are files, and everything said about them follows from them.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from mindtune.comparison.answers import count_pictures, read_answers, together
from mindtune.comparison.content import content
from mindtune.comparison.contract import SUMMARY, with_controls
from mindtune.comparison.controls import compare_controls, summarize_control
from mindtune.comparison.stages import controls_of
from mindtune.comparison.statistics import clusters, compare, exchange_test, wilson_interval
from mindtune.comparison.text import exact, has_box, tidy
from mindtune.files import writing

ALL = "all"


def compare_experiment(
    experiment: str, files: Mapping[str, Path], trained_here: bool = True
) -> pd.DataFrame:
    """A row per prompt, in the order of the prompts.

    files: `prompts`, `before`, `after`, and those of controls, such as `blind_before`.
    What a model that was trained elsewhere has seen there is not known.
    """
    rows, prompts = [], []
    own = {name: files[name] for name in ("prompts", "before", "after")}
    for prompt, first, second in read_answers(experiment, **own):
        prompts.append(prompt)
        reference = prompt["reference"]
        kept = ("id", "split", "family", "image", "image_in_training", "prompt", "reference")
        before, after = first["answer"], second["answer"]
        rows.append(
            {
                "experiment": experiment,
                **{key: prompt[key] for key in kept},
                "image_in_training": prompt["image_in_training"] if trained_here else None,
                "before": before,
                "after": after,
                "exact_before": exact(before, reference),
                "exact_after": exact(after, reference),
                "box_before": has_box(before),
                "box_after": has_box(after),
                "changed": tidy(before) != tidy(after),
            }
        )
    flags = ("image_in_training", "exact_before", "exact_after")
    table = pd.DataFrame(rows).astype(dict.fromkeys(flags, "boolean"))
    return table.join(compare_controls(experiment, prompts, files))


def compare_all(
    experiments: Mapping[str, Mapping[str, Path]], elsewhere: Collection[str] = ()
) -> pd.DataFrame:
    """The rows of all experiments, in their order; elsewhere: those whose models were trained there."""
    frames = [
        compare_experiment(name, files, name not in elsewhere)
        for name, files in experiments.items()
    ]
    return pd.concat(frames, ignore_index=True)


def groups(table: pd.DataFrame):
    """Yield (experiment, split, family, rows) for each family, and for all of them."""
    for (experiment, split), group in table.groupby(["experiment", "split"], sort=False):
        for family in [*sorted(group["family"].unique()), ALL]:
            part = group if family == ALL else group[group["family"] == family]
            yield experiment, split, family, part


def summarize(compared: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """A row per experiment, split and family, and one for all families: how many were right.

    n counts the prompts that have a reference.
    """
    rows = []
    controls = controls_of(compared)
    judged = compared[compared["exact_after"].notna()]
    judged = judged.assign(cluster=together(judged["image"]))
    for experiment, split, family, part in groups(judged):
        row = {"experiment": experiment, "split": split, "family": family, "n": len(part)}
        row["pictures"] = count_pictures(part["image"])
        for stage in ("before", "after"):
            right = int(part[f"exact_{stage}"].sum())
            low, high = wilson_interval(right, len(part), confidence)
            row |= {
                f"exact_{stage}": right / len(part),
                f"exact_{stage}_low": low,
                f"exact_{stage}_high": high,
            }
        row |= _difference("exact", part["exact_before"], part["exact_after"], part, confidence)
        gains = clusters(part["exact_before"], part["exact_after"], part["cluster"]).sums
        row["exact_p"] = exchange_test(gains)
        row |= {name: float(part[name].mean()) for name in ("box_before", "box_after", "changed")}
        said = {stage: _contents(part, stage) for stage in ("before", "after")}
        row |= {f"content_{stage}": sum(scores) / len(scores) for stage, scores in said.items()}
        row |= _difference("content", said["before"], said["after"], part, confidence)
        for control in controls:
            row |= _control(control, part, confidence)
        rows.append(row)
    return pd.DataFrame(rows, columns=list(with_controls(SUMMARY, controls).columns))


def _control(control: str, part: pd.DataFrame, confidence: float) -> dict:
    """A control's columns of a row of summary.csv."""
    scores = {"exact": lambda answer, reference, _: exact(answer, reference), "content": content}
    row = {}
    for name, score in scores.items():
        found = summarize_control(part, control, score, confidence, 1)
        row |= {f"{name}_{control}_{key}": value for key, value in found.items()}
    for stage in ("before", "after"):
        share = row[f"exact_{control}_{stage}"]
        low = high = None
        if share is not None:
            low, high = wilson_interval(round(share * len(part)), len(part), confidence)
        row |= {f"exact_{control}_{stage}_low": low, f"exact_{control}_{stage}_high": high}
    return row


def _contents(part: pd.DataFrame, stage: str) -> list[float]:
    columns = (part[stage], part["reference"], part["prompt"])
    return [content(*row) for row in zip(*columns, strict=True)]


def _difference(name: str, before, after, part: pd.DataFrame, confidence: float) -> dict:
    found = compare(before, after, part["cluster"], confidence, 1)
    return {
        f"{name}_difference": found.difference,
        f"{name}_difference_low": found.low,
        f"{name}_difference_high": found.high,
    }


def to_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as everybody reads it: UTF-8, commas, line feeds, true and false in words.

    A carriage return within a text becomes a line feed, as readers disagree on it: Python before
    3.11.9 leaves it unquoted, and others then begin a new row.
    """
    shown = frame.copy()
    for column in shown:
        if shown[column].dtype in ("bool", "boolean"):
            shown[column] = shown[column].map({True: "true", False: "false"})
        elif not pd.api.types.is_numeric_dtype(shown[column]):
            shown[column] = shown[column].map(_one_line_end, na_action="ignore")
    with writing(path) as handle:
        shown.to_csv(handle, index=False, lineterminator="\n", float_format="%.4f")


def _one_line_end(cell):
    if not isinstance(cell, str):
        return cell
    return cell.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
