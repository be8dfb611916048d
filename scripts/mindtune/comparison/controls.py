"""What controls come to: the same questions with a grey picture (`blind`) or another one (`shuffled`).

The gain with the question's own picture, minus the gain with the control's, is what the model sees of
it: the rest it would have gained without seeing. A control's columns are in a table where the control
is in the run.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mindtune.comparison.answers import known_out_of, picture_cell, said
from mindtune.comparison.stages import CONTROLS, STAGES
from mindtune.comparison.statistics import compare
from mindtune.comparison.text import exact
from mindtune.data.prompts import pictures_of
from mindtune.errors import UserError
from mindtune.files import read_json_lines

Score = Callable[[str, str, str], float]  # of an answer, its reference, and the prompt


def compare_controls(
    experiment: str, prompts: Sequence[Mapping], files: Mapping[str, Path]
) -> pd.DataFrame:
    """A control's columns of compare.csv, a row per prompt; named prompts have none.

    prompts: as `read_answers` yields them. files: `blind_before` and so on, of any controls.

    Raises
    ------
    UserError: answers and prompts don't belong together.
    """
    columns: dict[str, list] = {}
    for control in CONTROLS:
        if f"{control}_before" not in files:
            continue
        first, second = (
            _read(experiment, prompts, files, f"{control}_{stage}") for stage in STAGES
        )
        asked = [(prompt["id"], prompt["reference"]) for prompt in prompts]
        if control == "shuffled":
            columns["shuffled_image"] = [
                picture_cell(pictures_of(first[name])) if name in first else None
                for name, _ in asked
            ]
        pairs = [_said(first.get(name), second.get(name)) for name, _ in asked]
        texts = {stage: [pair[place] for pair in pairs] for place, stage in enumerate(STAGES)}
        columns |= {f"{control}_{stage}": answers for stage, answers in texts.items()}
        columns |= {
            f"exact_{control}_{stage}": [
                None if text is None else exact(text, reference)
                for text, (_, reference) in zip(answers, asked, strict=True)
            ]
            for stage, answers in texts.items()
        }
    return pd.DataFrame(columns, index=range(len(prompts)), dtype=object)


def _read(
    experiment: str, prompts: Sequence[Mapping], files: Mapping[str, Path], kind: str
) -> dict[str, dict]:
    """A control's answers of a stage, by id."""
    lines = read_json_lines(files[kind])
    asked = [prompt["id"] for prompt in prompts if prompt["split"] == "held_out"]
    if [line["id"] for line in lines] != asked:
        raise UserError(
            f"the answers in {files[kind]} of experiment {experiment} are of other prompts; delete them "
            "and run the same command again."
        )
    return {line["id"]: line for line in lines}


def _said(before: Mapping | None, after: Mapping | None) -> tuple[str | None, str | None]:
    """The answers to a prompt before and after; None for what is not there."""
    lines = (before, after)
    out_of = known_out_of(line for line in lines if line is not None)
    first, second = (None if line is None else said(line, out_of) for line in lines)
    return first, second


def summarize_control(
    part: pd.DataFrame, control: str, score: Score, confidence: float, most: float
) -> dict[str, float | None]:
    """before, after, seen, seen_low, seen_high of the rows of a group that have a reference.

    before, after: the mean score with the control's pictures. seen: the gain with the questions' own
    pictures minus the gain with these. All are None where the control was not asked.
    part: rows of compare.csv with a column `cluster`. most: the greatest possible score.
    """
    if part.empty or part[f"{control}_after"].isna().any():
        return dict.fromkeys((*STAGES, "seen", "seen_low", "seen_high"))
    own = [_scores(part, stage, score) for stage in STAGES]
    other = [_scores(part, f"{control}_{stage}", score) for stage in STAGES]
    # (after - before) - (other after - other before), as a difference of two sums from 0 to 2 most.
    found = compare(own[0] + other[1], own[1] + other[0], part["cluster"], confidence, 2 * most)
    return {
        "before": float(other[0].mean()),
        "after": float(other[1].mean()),
        "seen": found.difference,
        "seen_low": found.low,
        "seen_high": found.high,
    }


def _scores(part: pd.DataFrame, column: str, score: Score) -> np.ndarray:
    rows = zip(part[column], part["reference"], part["prompt"], strict=True)
    return np.asarray([float(score(*row)) for row in rows])
