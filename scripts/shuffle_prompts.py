"""Ask the held-out questions with one another's pictures: what can be guessed from any picture.

prompts.jsonl, pictures -> prompts_shuffled.jsonl
"""

import logging
from pathlib import Path

from mindtune.data.controls import held_out, shuffled, write_prompts
from mindtune.files import read_json_lines
from mindtune.glue.script_runner import run

log = logging.getLogger("mindtune")


def main(snakemake) -> None:
    prompts = held_out(read_json_lines(Path(snakemake.input.prompts)))
    changed = shuffled(prompts, Path(snakemake.input.images))
    write_prompts(changed, Path(snakemake.output.prompts))
    log.info(
        "compare.controls: shuffled asks %d prompts more, with other pictures of the set, of the base "
        "model and of each experiment's",
        len(changed),
    )


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
