"""Record what an experiment was made of.

sources, checkpoints, answers, benchmarks -> provenance.json
"""

from pathlib import Path

from mindtune.files import write_json
from mindtune.glue.script_runner import optional_path, run
from mindtune.provenance.record import record


def main(snakemake) -> None:
    names = ("images", "instructions", "base", "tuned", "prompts", "before", "after")
    controls = {
        name: Path(path)
        for name, path in snakemake.input.items()
        if name.startswith(("before_", "after_"))
    }
    found = record(
        snakemake.wildcards.experiment,
        snakemake.params.config,
        benchmarks=Path(snakemake.params.benchmarks),
        scopes=snakemake.params.scopes,
        adopted=snakemake.params.adopted,
        mm=optional_path(snakemake.input.mm),
        finetune=optional_path(snakemake.input.finetune),
        framework=optional_path(snakemake.input.framework),
        controls=controls,
        **{name: Path(snakemake.input[name]) for name in names},
    )
    write_json(Path(snakemake.output.provenance), found)


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
