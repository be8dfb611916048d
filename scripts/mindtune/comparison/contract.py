"""The columns of compare.csv and summary.csv: what others may rely on.

docs/outputs.md is made from these descriptions, so that it can't say anything else.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pandera.pandas as pa

from mindtune.comparison.stages import CONTROLS, controls_of
from mindtune.errors import UserError

TEXT, FLAG, NUMBER, SHARE = "text", "true or false", "number", "share, 0 to 1"
SEEN = "difference of shares"  # of two differences: -2 to 2
_DTYPES = {TEXT: "str", FLAG: "boolean", NUMBER: "Int64", SHARE: "Float64", SEEN: "Float64"}


def _column(kind: str, description: str, *, empty: bool = False, low: float = 0) -> pa.Column:
    limits = {SHARE: (low, 1), SEEN: (-2, 2)}
    check = pa.Check.in_range(*limits[kind]) if kind in limits else None
    return pa.Column(
        _DTYPES[kind],
        check,
        nullable=empty,
        coerce=True,
        description=description,
        metadata={"kind": kind},
    )


def _table(name: str, columns: dict, unique: list[str], checks: list) -> pa.DataFrameSchema:
    return pa.DataFrameSchema(
        columns, checks=checks, name=name, strict=True, ordered=True, unique=unique
    )


COMPARE = _table(
    "compare.csv",
    {
        "experiment": _column(TEXT, "Name of the experiment, as in the configuration."),
        "id": _column(TEXT, "Name of the prompt, the same in all experiments with its data."),
        "split": _column(
            TEXT, "`named`: from `prompts.named`; `held_out`: about a picture kept from training here."
        ),
        "family": _column(TEXT, "Family of the question (`prompts.families`), or `other`."),
        "image": _column(
            TEXT,
            "The picture, relative to the directory of pictures; a JSON list where there are several.",
        ),
        "image_in_training": _column(
            FLAG,
            "Whether training saw the picture (any of several): the answer may then be remembered. Empty "
            "for a model that was trained elsewhere, since nobody here knows.",
            empty=True,
        ),
        "prompt": _column(
            TEXT,
            "The question, with an `<image>` mark for each picture unless there is one that comes first.",
        ),
        "reference": _column(
            TEXT, "The right answer; empty, like `exact_after`, when nobody knows it.", empty=True
        ),
        "before": _column(TEXT, "The answer of the base model."),
        "after": _column(TEXT, "The answer of the fine-tuned model."),
        "exact_before": _column(
            FLAG, "Whether `before` is the reference, normalised; empty without one.", empty=True
        ),
        "exact_after": _column(FLAG, "The same of `after`.", empty=True),
        "box_before": _column(FLAG, "Whether `before` holds a box such as `(139,42),(703,771)`."),
        "box_after": _column(FLAG, "The same of `after`."),
        "changed": _column(FLAG, "Whether the answers differ in more than white space."),
    },
    ["experiment", "id"],
    [
        pa.Check(
            lambda t: (t["reference"].isna() == t["exact_after"].isna()).all(),
            error="exact_after is empty just where reference is",
        ),
        pa.Check(
            lambda t: not (t["split"].eq("held_out") & t["image_in_training"]).any(),
            error="no held-out picture is in training",
        ),
    ],
)  # fmt: skip

_INTERVAL = "end of its Wilson interval"
SUMMARY = _table(
    "summary.csv",
    {
        "experiment": _column(TEXT, "Name of the experiment."),
        "split": _column(TEXT, "`named` or `held_out`."),
        "family": _column(TEXT, "Family of questions, or `all` of them."),
        "n": _column(NUMBER, "Prompts with a reference, on which the row rests."),
        "pictures": _column(NUMBER, "Different pictures among them."),
        "exact_before": _column(SHARE, "Share answered right (normalised exact match) before."),
        "exact_before_low": _column(SHARE, f"Lower {_INTERVAL}."),
        "exact_before_high": _column(SHARE, f"Upper {_INTERVAL}."),
        "exact_after": _column(SHARE, "Share answered right after."),
        "exact_after_low": _column(SHARE, f"Lower {_INTERVAL}."),
        "exact_after_high": _column(SHARE, f"Upper {_INTERVAL}."),
        "exact_difference": _column(SHARE, "After minus before, -1 to 1.", low=-1),
        "exact_difference_low": _column(SHARE, "Lower end of its interval.", low=-1),
        "exact_difference_high": _column(SHARE, "Upper end of its interval.", low=-1),
        "exact_p": _column(
            SHARE, "How likely a difference as large would be, if training had changed nothing."
        ),
        "box_before": _column(SHARE, "Share of answers with a box before."),
        "box_after": _column(SHARE, "Share of answers with a box after."),
        "changed": _column(SHARE, "Share of prompts whose answer changed."),
        "content_before": _column(
            SHARE, "Share of the reference's key words, numbers and boxes found before, by mean."
        ),
        "content_after": _column(SHARE, "The same after."),
        "content_difference": _column(SHARE, "After minus before, -1 to 1.", low=-1),
        "content_difference_low": _column(SHARE, "Lower end of its interval.", low=-1),
        "content_difference_high": _column(SHARE, "Upper end of its interval.", low=-1),
    },
    ["experiment", "split", "family"],
    [
        pa.Check(
            lambda t: all(
                (t[f"{name}_difference_low"] <= t[f"{name}_difference"]).all()
                and (t[f"{name}_difference"] <= t[f"{name}_difference_high"]).all()
                for name in ("exact", "content")
            ),
            error="a difference lies in its interval",
        )
    ],
)

PICTURES = {"blind": "a grey picture of the same size", "shuffled": "another picture of the set"}


def compare_columns(control: str) -> dict[str, pa.Column]:
    """A control's columns of compare.csv; they are empty for named prompts, which it isn't asked."""
    found = {}
    if control == "shuffled":
        found["shuffled_image"] = _column(
            TEXT,
            "The other picture, as in `image`: a JSON list where there are several.",
            empty=True,
        )
    return found | {
        f"{control}_before": _column(
            TEXT, f"The base model's answer with {PICTURES[control]}.", empty=True
        ),
        f"{control}_after": _column(TEXT, "The fine-tuned model's.", empty=True),
        f"exact_{control}_before": _column(
            FLAG, f"Whether `{control}_before` is the reference, normalised.", empty=True
        ),
        f"exact_{control}_after": _column(FLAG, f"The same of `{control}_after`.", empty=True),
    }


def summary_columns(control: str) -> dict[str, pa.Column]:
    """A control's columns of summary.csv; they are empty for named prompts."""
    found = {}
    for stage in ("before", "after"):
        name = f"exact_{control}_{stage}"
        found[name] = _column(
            SHARE, f"Share answered right {stage}, with {PICTURES[control]}.", empty=True
        )
        found[f"{name}_low"] = _column(SHARE, f"Lower {_INTERVAL}.", empty=True)
        found[f"{name}_high"] = _column(SHARE, f"Upper {_INTERVAL}.", empty=True)
    for stage in ("before", "after"):
        found[f"content_{control}_{stage}"] = _column(
            SHARE, f"`content_{stage}` with {PICTURES[control]}.", empty=True
        )
    for metric in ("exact", "content"):
        name = f"{metric}_{control}_seen"
        found[name] = _column(
            SEEN,
            f"What was seen of the gain: `{metric}_difference`, minus {metric} after and plus {metric} "
            f"before with {PICTURES[control]}, -2 to 2.",
            empty=True,
        )
        found[f"{name}_low"] = _column(SEEN, "Lower end of its interval.", empty=True)
        found[f"{name}_high"] = _column(SEEN, "Upper end of its interval.", empty=True)
    return found


_OF_CONTROLS = {COMPARE.name: compare_columns, SUMMARY.name: summary_columns}


def with_controls(contract: pa.DataFrameSchema, controls: Iterable[str]) -> pa.DataFrameSchema:
    """The contract of a table of a run with controls: their columns come last."""
    for control in controls:
        contract = contract.add_columns(_OF_CONTROLS[contract.name](control))
    return contract


def control_columns(contract: pa.DataFrameSchema) -> pa.DataFrameSchema:
    """The columns that all controls bring to a table, by themselves."""
    added = {
        name: column
        for control in CONTROLS
        for name, column in _OF_CONTROLS[contract.name](control).items()
    }
    return pa.DataFrameSchema(added, name=f"{contract.name}, controls")


_FLAGS = {"true": True, "false": False}


def checked(table: pd.DataFrame, contract: pa.DataFrameSchema) -> pd.DataFrame:
    """The table with the contract's types, and those of the controls that it has columns of.

    Raises
    ------
    pandera.errors.SchemaErrors: the table breaks the contract.
    """
    return with_controls(contract, controls_of(table)).validate(table, lazy=True)


def read_table(path: Path, contract: pa.DataFrameSchema) -> pd.DataFrame:
    """Read a CSV file that should keep a contract.

    Raises
    ------
    UserError: it does not.
    """
    found = pd.read_csv(path, dtype=str, keep_default_na=False)
    contract = with_controls(contract, controls_of(found))
    for name, column in contract.columns.items():
        if name not in found:
            continue
        kind = column.metadata["kind"]
        if column.nullable or kind != TEXT:
            found[name] = found[name].mask(found[name] == "", pd.NA)
        if kind == FLAG:
            found[name] = found[name].map(lambda word: _FLAGS.get(word, word), na_action="ignore")
        elif kind in (NUMBER, SHARE, SEEN):
            found[name] = pd.to_numeric(found[name], errors="coerce")
    if {"reference", "exact_after"} <= set(found):
        # An empty text may be the right answer; a cell can't tell it from none, the verdict can.
        known = found["reference"].isna() & found["exact_after"].notna()
        found["reference"] = found["reference"].mask(known, "")
    if "exact_after" in found:
        for name in {"blind_before", "blind_after", "shuffled_before", "shuffled_after"} & set(
            found
        ):
            asked = found[name].isna() & found[f"exact_{name}"].notna()
            found[name] = found[name].mask(asked, "")
    try:
        return contract.validate(found, lazy=True)
    except pa.errors.SchemaErrors as error:
        first = error.failure_cases.iloc[0]
        raise UserError(
            f"{path} is not what this version writes as {contract.name} ({first['check']}: "
            f"{first['failure_case']}); delete it and run the same command again."
        ) from error
