"""Unpack a zip of pictures, or see that it is unpacked, and link the result to the directory.

train2017.zip -> data/COCO2017/train2017/, and a link to it
"""

import logging
from pathlib import Path

from mindtune.data.unpack import unpack
from mindtune.files import link
from mindtune.glue.script_runner import run

log = logging.getLogger("mindtune")


def main(snakemake) -> None:
    target = Path(snakemake.params.target)
    count = unpack(
        Path(snakemake.input.archive),
        target,
        pictures=snakemake.params.pictures,
        threads=snakemake.threads,
    )
    log.info("%d pictures are in %s", count, target)
    link(target, Path(snakemake.output.images))


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
