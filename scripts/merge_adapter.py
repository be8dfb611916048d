"""Merge an adapter into its base, one that was trained elsewhere or, with `export: adapter`, here.

peft adapter, Hugging Face directory of the base -> config.json, model-00001-of-….safetensors …
"""

import logging
from pathlib import Path

from mindtune.checkpoint.peft_adapter import merge_adapter
from mindtune.divergence import model_divergence, write_no_model
from mindtune.glue.script_runner import run

log = logging.getLogger("mindtune")


def main(snakemake) -> None:
    adapter = Path(snakemake.input.adapter)
    if diverged := model_divergence(adapter):
        log.warning("the training diverged at iteration %d: no model", diverged["iteration"])
        write_no_model(Path(snakemake.output.merged), diverged)
        return
    merged = merge_adapter(
        adapter,
        Path(snakemake.input.base),
        Path(snakemake.output.merged),
        widen=snakemake.params.tuned_model is None,  # trained here
    )
    log.info("%d weights of %s changed by %s", merged, snakemake.input.base, adapter)


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
