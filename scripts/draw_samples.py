"""Draw a contact sheet: twelve pictures, with the answers before and after under them.

compare.csv, pictures -> samples.png
"""

from pathlib import Path

from mindtune.comparison.contract import COMPARE, read_table
from mindtune.files import writing
from mindtune.glue.script_runner import run
from mindtune.report.sheet import choose, draw_sheet

SAMPLES = 12


def main(snakemake) -> None:
    compared = read_table(Path(snakemake.input.compare), COMPARE)
    experiment = snakemake.params.experiment
    rows = compared[compared["experiment"] == experiment]
    chosen = choose(rows, SAMPLES)
    sheet = draw_sheet(
        chosen,
        Path(snakemake.input.images),
        "Before and after fine-tuning",
        f"Experiment {experiment}: the first question and {len(chosen) - 1} of {len(rows) - 1} "
        "others, taken at equal distances. Frames: where the answer before points.",
    )
    with writing(Path(snakemake.output.sheet), "wb") as handle:
        sheet.save(handle, "PNG", optimize=True)


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
