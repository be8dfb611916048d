"""What the scores of all experiments come to, with intervals and tests.

scores.csv of each experiment, compare.csv -> metrics.csv
"""

from pathlib import Path

from mindtune.comparison.contract import COMPARE, read_table
from mindtune.comparison.scores import all_metrics, read_scores
from mindtune.comparison.tables import to_csv
from mindtune.comparison.verdicts import rule_of
from mindtune.glue.script_runner import run


def main(snakemake) -> None:
    compared = read_table(Path(snakemake.input.compare), COMPARE)
    rule = rule_of(snakemake.params, compared)
    scores = read_scores(map(Path, snakemake.input.scores))
    to_csv(all_metrics(scores, compared, rule), Path(snakemake.output.metrics))


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
