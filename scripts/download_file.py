"""Fetch a file, or verify that it is there, and link the result to it.

(table of sources) -> data/…/train2017.zip, and a link to it
"""

from pathlib import Path

from mindtune.download.fetching import fetch_all
from mindtune.files import link
from mindtune.glue.script_runner import run, typed


def main(snakemake) -> None:
    (path,) = fetch_all(
        snakemake.params.what, typed("sources.download", snakemake.config["operation"]["download"])
    )
    link(path, Path(snakemake.output.file))


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
