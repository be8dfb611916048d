"""Turn the newest checkpoint of a training into a Hugging Face model.

save_dir, Hugging Face directory of the base -> config.json, model-00001-of-….safetensors …
"""

import json
from pathlib import Path

from mindtune.engines.converting import converter
from mindtune.engines.requests import ExportJob
from mindtune.glue.script_runner import optional_path, run


def main(snakemake) -> None:
    done = json.loads(Path(snakemake.input.done).read_text(encoding="utf-8"))
    job = ExportJob(
        save_dir=Path(done["save_dir"]),
        hf_dir=Path(snakemake.input.hf),
        out_dir=Path(snakemake.output.hf),
        parallel=snakemake.params.parallel,
        framework=optional_path(snakemake.input.framework),
        operation=snakemake.config["operation"]["engine"],
    )
    converter(snakemake.params.converter).export(job)


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
