"""Install MindSpeed-MM in an environment of its own, or check the installation that is there.

pins, `mindspeed` section -> installation.json: home, python, versions, commits, stand_in
"""

import logging

from mindtune.job import run

log = logging.getLogger(__name__)


def main(snakemake) -> None:
    raise NotImplementedError


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
