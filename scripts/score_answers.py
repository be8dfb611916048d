"""Score an experiment's answers by every metric; no model is loaded.

prompts.jsonl, answers_before.jsonl, answers_after.jsonl -> scores.csv
"""

from pathlib import Path

from mindtune.comparison.scores import score_experiment
from mindtune.comparison.tables import to_csv
from mindtune.glue.script_runner import run


def main(snakemake) -> None:
    files = {name: Path(snakemake.input[name]) for name in ("prompts", "before", "after")}
    to_csv(score_experiment(snakemake.wildcards.experiment, files), Path(snakemake.output.scores))


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
