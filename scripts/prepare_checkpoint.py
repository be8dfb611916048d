"""Turn the base model into an mm checkpoint.

Hugging Face directory -> latest_checkpointed_iteration.txt, release/mp_rank_00/…
"""

from pathlib import Path

from mindtune.engines.converting import converter
from mindtune.engines.requests import PrepareJob
from mindtune.glue.script_runner import optional_path, run


def main(snakemake) -> None:
    operation = snakemake.config["operation"]
    job = PrepareJob.of(
        operation["trainer"],
        hf_dir=Path(snakemake.input.hf),
        mm_dir=Path(snakemake.output.mm),
        parallel=snakemake.params.parallel,
        framework=optional_path(snakemake.input.framework),
        operation=operation["engine"],
    )
    converter(snakemake.params.converter).prepare(job)


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
