"""Choose what is asked before and after: named prompts first, then held-out questions.

train.json, held_out.json -> prompts.jsonl
"""

import json
import logging
from pathlib import Path

from mindtune.data.mllm import read_mllm
from mindtune.data.prompts import select
from mindtune.files import writing
from mindtune.job import run

log = logging.getLogger("mindtune")


def main(snakemake) -> None:
    prompts = select(
        read_mllm(Path(snakemake.input.train)),
        read_mllm(Path(snakemake.input.held_out)),
        Path(snakemake.input.images),
        **snakemake.params.prompts,
    )
    with writing(snakemake.output.prompts) as handle:
        handle.writelines(json.dumps(prompt, ensure_ascii=False) + "\n" for prompt in prompts)
    named = sum(prompt["split"] == "named" for prompt in prompts)
    log.info("%d named prompts, %d held-out ones", named, len(prompts) - named)


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
