"""What the scores of all experiments come to, with intervals and tests.

scores.csv of each experiment, compare.csv -> metrics.csv
"""

from pathlib import Path

from mindtune.comparison.contract import COMPARE, read_table
from mindtune.comparison.scores import corpus_scores, read_scores, summarize_scores
from mindtune.comparison.tables import to_csv
from mindtune.comparison.verdicts import rule_of
from mindtune.glue.script_runner import run


def main(snakemake) -> None:
    compared = read_table(Path(snakemake.input.compare), COMPARE)
    metrics = summarize_scores(
        read_scores(map(Path, snakemake.input.scores)), rule_of(snakemake.params, compared)
    )
    corpus = corpus_scores(compared)
    keys = ["experiment", "split", "family", "metric"]
    to_csv(metrics.merge(corpus, on=keys, how="left"), Path(snakemake.output.metrics))


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
