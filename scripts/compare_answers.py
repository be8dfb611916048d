"""Compare the answers before and after of all experiments.

prompts.jsonl, answers_before.jsonl, answers_after.jsonl, and those of controls -> compare.csv, summary.csv
"""

import logging
from pathlib import Path

from mindtune.comparison.contract import COMPARE, SUMMARY, checked
from mindtune.comparison.tables import ALL, compare_all, summarize, to_csv
from mindtune.glue.script_runner import run

log = logging.getLogger("mindtune")


def main(snakemake) -> None:
    # prompts, before, after, and blind_before and so on where there are controls
    kinds = list(snakemake.input.keys())
    files = zip(*(snakemake.input[kind] for kind in kinds), strict=True)
    experiments = {
        name: dict(zip(kinds, map(Path, paths), strict=True))
        for name, paths in zip(snakemake.params.experiments, files, strict=True)
    }
    compared = checked(compare_all(experiments, snakemake.params.get("elsewhere", ())), COMPARE)
    summary = checked(summarize(compared, snakemake.params.confidence), SUMMARY)
    to_csv(compared, Path(snakemake.output.compare))
    to_csv(summary, Path(snakemake.output.summary))
    for row in summary[summary["family"] == ALL].itertuples():
        log.info(
            "%s, %s: exact match %.1f %% before, %.1f %% after (n = %d)",
            row.experiment, row.split, 100 * row.exact_before, 100 * row.exact_after, row.n,
        )  # fmt: skip


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
