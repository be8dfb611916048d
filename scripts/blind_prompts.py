"""Ask the held-out questions with grey pictures of the same size: what can be guessed without seeing.

prompts.jsonl, pictures -> prompts_blind.jsonl, grey pictures
"""

import logging
from pathlib import Path

from mindtune.data.controls import blinded, held_out, write_prompts
from mindtune.files import read_json_lines, writing_directory
from mindtune.glue.script_runner import run

log = logging.getLogger("mindtune")


def main(snakemake) -> None:
    prompts = held_out(read_json_lines(Path(snakemake.input.prompts)))
    with writing_directory(Path(snakemake.output.pictures)) as directory:
        changed = blinded(prompts, Path(snakemake.input.images), directory)
    write_prompts(changed, Path(snakemake.output.prompts))
    log.info(
        "compare.controls: blind asks %d prompts more, with grey pictures, of the base model and of "
        "each experiment's",
        len(changed),
    )


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
