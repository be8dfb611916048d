"""Turn the newest checkpoint of a training into a Hugging Face model.

save_dir, Hugging Face directory of the base -> config.json, model-00001-of-….safetensors …
                                            or adapter_config.json, adapter_model.safetensors
"""

import json
import logging
from pathlib import Path

from mindtune.divergence import KEY, write_no_model
from mindtune.engines.converting import converter
from mindtune.engines.requests import ExportJob
from mindtune.glue.script_runner import optional_path, run

log = logging.getLogger("mindtune")


def main(snakemake) -> None:
    done = json.loads(Path(snakemake.input.done).read_text(encoding="utf-8"))
    if diverged := done.get(KEY):
        log.warning("the training diverged at iteration %d: no model", diverged["iteration"])
        write_no_model(Path(snakemake.output.hf), diverged)
        return
    operation = snakemake.config["operation"]
    job = ExportJob.of(
        operation["trainer"],
        save_dir=Path(done["save_dir"]),
        hf_dir=Path(snakemake.input.hf),
        out_dir=Path(snakemake.output.hf),
        parallel=snakemake.params.parallel,
        framework=optional_path(snakemake.input.framework),
        operation=operation["engine"],
        adapter=snakemake.params.adapter,
    )
    converter(snakemake.params.converter).export(job)


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
