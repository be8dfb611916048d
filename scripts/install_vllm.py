"""Install vLLM in an environment of its own, where vllm.python names none.

requirements of envs/, `vllm` section -> vllm.json: python, versions
"""

from pathlib import Path

from mindtune.engines.vllm.installing import make_sure
from mindtune.files import write_json
from mindtune.glue.script_runner import run, typed
from mindtune.process import needed_by_all


def main(snakemake) -> None:
    with needed_by_all():
        write_json(
            Path(snakemake.output.installation),
            make_sure(typed("vllm", snakemake.config["operation"]["vllm"])),
        )


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
