"""Fetch the files of a model, or verify that they are there, and link the result to them.

(table of sources) -> data/<its place>/…, and a directory of links to them
"""

from pathlib import Path

from mindtune.download.fetching import fetch_all
from mindtune.files import link, writing_directory
from mindtune.glue.script_runner import run, typed


def main(snakemake) -> None:
    paths = fetch_all(
        snakemake.params.what, typed("sources.download", snakemake.config["operation"]["download"])
    )
    with writing_directory(snakemake.output.model) as directory:
        for path in paths:
            link(path, Path(directory, path.name))


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
