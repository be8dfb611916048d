"""Look at the machine: NPUs, CANN, versions, commits, disk; stop early where something is wrong.

installation.json, `mindspeed` section -> machine.json, which `mindtune.engines.mindspeed.machine`
reads: home, python, set_env, stand_in (absolute paths or null), the settings that a launch needs,
and the rows of the doctor's table.
"""

from mindtune.job import run


def main(snakemake) -> None:
    raise NotImplementedError


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
