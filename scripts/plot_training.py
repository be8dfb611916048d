"""Draw an experiment's curves: loss, held-out loss, learning rate, time per iteration.

loss.csv -> loss.svg
"""

from pathlib import Path

import pandas as pd
from mindtune.files import writing
from mindtune.glue.script_runner import run
from mindtune.report.curves import training_svg
from mindtune.report.words import Words


def main(snakemake) -> None:
    losses = {snakemake.wildcards.experiment: pd.read_csv(snakemake.input.loss)}
    words = Words(snakemake.params.language)
    with writing(Path(snakemake.output.plot)) as handle:
        handle.write(training_svg(losses, words))


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
