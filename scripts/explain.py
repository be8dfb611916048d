"""Say which changed keys, files and code make which jobs run, and for how long; runs nothing.

python scripts/explain.py                       # of results/compare.csv
python scripts/explain.py all --configfile config/qwen2-vl-2b.yaml
"""

import argparse
import sys
from collections.abc import Sequence

from mindtune.glue.explain import explanation, known_code
from mindtune.glue.plan import PlanError, plan


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "targets", nargs="*", default=["results/compare.csv"],
        help="as for snakemake; results/compare.csv when there is none",
    )  # fmt: skip
    for option in ("--configfile", "--config", "--directory", "--snakefile", "--profile"):
        parser.add_argument(option, action="append", help="as for snakemake, one value at a time")
    given = vars(parser.parse_args(arguments))
    command = list(given.pop("targets"))
    for option, values in given.items():
        command += [f"--{option}", *values] if values else []
    try:
        found = plan(command)
    except PlanError as error:
        if str(error):
            print(error, file=sys.stderr)
        return 1
    print(explanation(found, known_code(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
