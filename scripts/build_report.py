"""Build the page that shows what the fine-tuning did.

compare.csv, summary.csv, metrics.csv, scores.csv, loss.csv, provenance.json, pictures -> report.html
"""

import json
from pathlib import Path

import pandas as pd
from mindtune.comparison.contract import COMPARE, SUMMARY, read_table
from mindtune.comparison.scores import read_metrics, read_scores
from mindtune.comparison.verdicts import rule_of
from mindtune.files import writing
from mindtune.glue.script_runner import run
from mindtune.report.page import Run, render
from mindtune.report.words import Words

KINDS = ("scores", "conversion", "provenance")
TABLES = ("compare", "summary", "metrics")


def read_run(
    tables: dict[str, Path],
    experiments: dict[str, dict[str, Path]],
    images: Path,
    params,
) -> Run:
    """A finished run from its files: TABLES, and KINDS of each experiment.

    An experiment has `loss` too, where its model was trained here. params: has the keys of the section
    `compare`, and `language`.
    """
    compared = read_table(tables["compare"], COMPARE)
    return Run(
        compared=compared,
        summary=read_table(tables["summary"], SUMMARY),
        scores=read_scores(files["scores"] for files in experiments.values()),
        metrics=read_metrics(tables["metrics"]),
        losses={
            name: pd.read_csv(files["loss"])
            for name, files in experiments.items()
            if "loss" in files
        },
        conversions=_read(experiments, "conversion"),
        provenance=_read(experiments, "provenance"),
        images=images,
        files={path.name: path for path in tables.values()},
        rule=rule_of(params, compared),
        words=Words(params.language),
    )


def _read(experiments: dict[str, dict[str, Path]], kind: str) -> dict[str, dict]:
    return {
        name: json.loads(files[kind].read_text(encoding="utf-8"))
        for name, files in experiments.items()
    }


def main(snakemake) -> None:
    experiments = {
        name: {kind: Path(snakemake.input[kind][number]) for kind in KINDS}
        for number, name in enumerate(snakemake.params.experiments)
    }
    for loss in map(Path, snakemake.input.loss):
        experiments[loss.parent.name]["loss"] = loss
    tables = {name: Path(snakemake.input[name]) for name in TABLES}
    images = Path(snakemake.input.images)
    page = render(read_run(tables, experiments, images, snakemake.params))
    with writing(Path(snakemake.output.page)) as handle:
        handle.write(page)


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
