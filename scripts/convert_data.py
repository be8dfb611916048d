"""Turn instructions into mllm-format data, with a held-out part that shares no image.

llava_instruct_150k.json, train2017/ -> train.json, held_out.json, conversion.json
"""

import logging
from functools import partial
from pathlib import Path

from mindtune.data.looking import phrases
from mindtune.data.mllm import convert, forms_of, remarks
from mindtune.glue.clock import refuse_future
from mindtune.glue.script_runner import run
from mindtune.progress import progress

log = logging.getLogger("mindtune")


def main(snakemake) -> None:
    refuse_future(map(Path, [snakemake.input.instructions, *snakemake.input.get("mixture", [])]))
    report = convert(
        Path(snakemake.input.instructions),
        Path(snakemake.input.images),
        Path(snakemake.output.train),
        Path(snakemake.output.held_out),
        Path(snakemake.output.report),
        mixture=[
            {"path": path, "weight": weight}
            for path, weight in zip(
                snakemake.input.get("mixture", []), snakemake.params.weights, strict=True
            )
        ],
        progress=partial(progress, what="converting", unit="records"),
        **snakemake.params.data,
    )
    log.info("the form of the instructions is %s", " and ".join(forms_of(report)))
    log.info(
        "%d records: %d to train on, %d held out, %d dropped",
        report["records"],
        report["kept"]["train"],
        report["kept"]["held_out"],
        sum(report["dropped"].values()),
    )
    for remark in (*remarks(report), *phrases(report["altered"])):
        log.warning("%s", remark)


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
