"""The columns of compare.csv and summary.csv: what others may rely on.

docs/outputs.md is made from these descriptions, so that it can't say anything else.
"""

from pathlib import Path

import pandas as pd
import pandera.pandas as pa

from mindtune.errors import UserError

TEXT, FLAG, NUMBER, SHARE = "text", "true or false", "number", "share, 0 to 1"
_DTYPES = {TEXT: "str", FLAG: "boolean", NUMBER: "Int64", SHARE: "Float64"}


def _column(kind: str, description: str, *, empty: bool = False, low: float = 0) -> pa.Column:
    check = pa.Check.in_range(low, 1) if kind == SHARE else None
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

_FLAGS = {"true": True, "false": False}


def checked(table: pd.DataFrame, contract: pa.DataFrameSchema) -> pd.DataFrame:
    """The table with the contract's types.

    Raises
    ------
    pandera.errors.SchemaErrors: the table breaks the contract.
    """
    return contract.validate(table, lazy=True)


def read_table(path: Path, contract: pa.DataFrameSchema) -> pd.DataFrame:
    """Read a CSV file that should keep a contract.

    Raises
    ------
    UserError: it does not.
    """
    found = pd.read_csv(path, dtype=str, keep_default_na=False)
    for name, column in contract.columns.items():
        if name not in found:
            continue
        kind = column.metadata["kind"]
        if column.nullable or kind != TEXT:
            found[name] = found[name].mask(found[name] == "", pd.NA)
        if kind == FLAG:
            found[name] = found[name].map(lambda word: _FLAGS.get(word, word), na_action="ignore")
        elif kind in (NUMBER, SHARE):
            found[name] = pd.to_numeric(found[name], errors="coerce")
    if {"reference", "exact_after"} <= set(found):
        # An empty text may be the right answer; a cell can't tell it from none, the verdict can.
        known = found["reference"].isna() & found["exact_after"].notna()
        found["reference"] = found["reference"].mask(known, "")
    try:
        return checked(found, contract)
    except pa.errors.SchemaErrors as error:
        first = error.failure_cases.iloc[0]
        raise UserError(
            f"{path} is not what this version writes as {contract.name} ({first['check']}: "
            f"{first['failure_case']}); delete it and run the same command again."
        ) from error
