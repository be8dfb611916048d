"""Install MindSpeed-MM in an environment of its own, or check the installation that is there.

pins, `mindspeed` section -> installation.json: home, python, set_env, stand_in, versions, commits
"""

from mindtune.engines.mindspeed.framework.installation import make_sure
from mindtune.engines.mindspeed.framework.pins import load_pins
from mindtune.files import write_json
from mindtune.glue.script_runner import run, typed
from mindtune.process import needed_by_all


def main(snakemake) -> None:
    keys = ("home", "python", "set_env", "stand_in", "install")
    settings = {key: snakemake.params[key] for key in keys}
    with needed_by_all():
        write_json(
            snakemake.output.installation, make_sure(typed("mindspeed", settings), load_pins())
        )


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
