"""Choose what is asked before and after: named prompts first, then held-out questions.

train.json, held_out.json -> prompts.jsonl
"""

import json
import logging
from pathlib import Path

from mindtune.data.mllm import read_mllm
from mindtune.data.prompts import select, shortfall
from mindtune.files import writing
from mindtune.glue.script_runner import run, typed

log = logging.getLogger("mindtune")


def main(snakemake) -> None:
    asked = typed("prompts", snakemake.params.prompts)
    held_out = read_mllm(Path(snakemake.input.held_out))
    prompts = select(
        read_mllm(Path(snakemake.input.train)),
        held_out,
        Path(snakemake.input.images),
        **snakemake.params.prompts,
    )
    with writing(snakemake.output.prompts) as handle:
        handle.writelines(json.dumps(prompt, ensure_ascii=False) + "\n" for prompt in prompts)
    named = sum(prompt["split"] == "named" for prompt in prompts)
    log.info("%d named prompts, %d held-out ones", named, len(prompts) - named)
    if less := shortfall(held_out, asked.held_out_questions, asked.turns):
        log.warning("%s", less)


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
