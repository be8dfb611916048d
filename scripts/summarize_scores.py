"""What the scores of all experiments come to, with intervals and tests.

scores.csv of each experiment, compare.csv -> metrics.csv
"""

from pathlib import Path

from mindtune.comparison.contract import COMPARE, read_table
from mindtune.comparison.scores import control_scores, corpus_scores, read_scores, summarize_scores
from mindtune.comparison.tables import to_csv
from mindtune.comparison.verdicts import rule_of
from mindtune.glue.script_runner import run


def main(snakemake) -> None:
    compared = read_table(Path(snakemake.input.compare), COMPARE)
    rule = rule_of(snakemake.params, compared)
    metrics = summarize_scores(read_scores(map(Path, snakemake.input.scores)), rule)
    for more in (corpus_scores(compared), control_scores(compared, rule)):
        if more is not None:
            keys = ["experiment", "split", "family", "metric"]
            metrics = metrics.merge(more, on=keys, how="left")
    to_csv(metrics, Path(snakemake.output.metrics))


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
