"""Compare a finished run with another one, and say in words what differs.

    python scripts/verify_run.py results ../elsewhere/results

Both are results directories with compare.csv and a provenance.json per experiment. The exit
status is 0 when answers and weights are the same, 1 when they differ, 2 when a run can't be read.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mindtune.errors import UserError
from mindtune.provenance.verify import compare_runs


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="Exit status: 0 same results, 1 others."
    )
    parser.add_argument("here", type=Path, help="results directory of a finished run")
    parser.add_argument("there", type=Path, help="results directory of another finished run")
    given = parser.parse_args(arguments)
    try:
        lines, same = compare_runs(given.here, given.there)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
