"""Draw a contact sheet: twelve pictures, with the answers before and after, and the reference, under them.

compare.csv, pictures -> samples.png
"""

from pathlib import Path

from mindtune.comparison.contract import COMPARE, read_table
from mindtune.files import writing
from mindtune.glue.script_runner import run
from mindtune.report.sheet import choose, draw_sheet
from mindtune.report.words import Words

SAMPLES = 12


def main(snakemake) -> None:
    compared = read_table(Path(snakemake.input.compare), COMPARE)
    # The first, unless its training diverged.
    names = [snakemake.params.experiment, *compared["experiment"]]
    experiment = next(name for name in names if compared["experiment"].eq(name).any())
    rows = compared[compared["experiment"] == experiment]
    chosen = choose(rows, SAMPLES)
    images = Path(snakemake.input.images)
    words = Words(snakemake.params.language)
    sheet = draw_sheet(chosen, images, experiment, len(rows) - 1, words)
    with writing(Path(snakemake.output.sheet), "wb") as handle:
        sheet.save(handle, "PNG", optimize=True)


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
