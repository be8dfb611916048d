"""Lay the demo's tiny base model out as a Hugging Face download of Qwen2-VL.

mindtune/demo/base/ -> config.json, tokenizer.json, model-00001-of-00002.safetensors …
"""

import logging
from pathlib import Path

from mindtune.demo.base_model import write_base_model
from mindtune.glue.script_runner import run

log = logging.getLogger("mindtune")


def main(snakemake) -> None:
    making = write_base_model(Path(snakemake.output.model))
    log.info("a Qwen2-VL of %s parameters", f"{making['parameters']:,}")


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
