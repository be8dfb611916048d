"""Merge an adapter that was trained elsewhere into its base.

peft adapter, Hugging Face directory of the base -> config.json, model-00001-of-….safetensors …
"""

import logging
from pathlib import Path

from mindtune.checkpoint.peft_adapter import merge_adapter
from mindtune.glue.script_runner import run

log = logging.getLogger("mindtune")


def main(snakemake) -> None:
    adapter = Path(snakemake.input.adapter)
    merged = merge_adapter(adapter, Path(snakemake.input.base), Path(snakemake.output.merged))
    log.info("%d weights of %s changed by %s", merged, snakemake.input.base, adapter)


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
