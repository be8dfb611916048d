"""Compare the answers before and after of all experiments.

prompts.jsonl, answers_before.jsonl, answers_after.jsonl, and those of controls -> compare.csv, summary.csv
"""

import logging
from pathlib import Path

from mindtune.comparison.contract import COMPARE, SUMMARY, checked
from mindtune.comparison.tables import ALL, compare_all, summarize, to_csv
from mindtune.divergence import answers_divergence
from mindtune.errors import UserError
from mindtune.glue.script_runner import run

log = logging.getLogger("mindtune")


def with_answers(experiments: dict[str, dict[str, Path]]) -> dict[str, dict[str, Path]]:
    """The experiments without those whose training diverged, which are reported.

    Raises
    ------
    UserError: none is left.
    """
    diverged = {name: answers_divergence(files["after"]) for name, files in experiments.items()}
    left = {name: files for name, files in experiments.items() if not diverged[name]}
    for name, found in diverged.items():
        if found:
            log.warning(
                "%s: left out, since its training diverged: the loss of iteration %d is %s",
                name, found["iteration"], found["loss"],
            )  # fmt: skip
    if not left:
        raise UserError(
            "every experiment's training diverged, so there is nothing to compare; lower train.lr, or "
            "set train.clip_grad to 1.0."
        )
    return left


def main(snakemake) -> None:
    # prompts, before, after, and blind_before and so on where there are controls
    kinds = list(snakemake.input.keys())
    files = zip(*(snakemake.input[kind] for kind in kinds), strict=True)
    experiments = {
        name: dict(zip(kinds, map(Path, paths), strict=True))
        for name, paths in zip(snakemake.params.experiments, files, strict=True)
    }
    compared = checked(
        compare_all(with_answers(experiments), snakemake.params.get("elsewhere", ())), COMPARE
    )
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
