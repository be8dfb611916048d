"""Show and remove what was put aside or kept: checkpoints of other settings, answers of an interrupted
answering, which the same command would take up, and features of pictures.

    python scripts/clean.py                        what is put aside, its size and its settings
    python scripts/clean.py baseline/0123456789abcdef     asks, and removes it
    python scripts/clean.py shared/features        the features of pictures that trainings share
    python scripts/clean.py --yes --all            removes all that is listed

A training never removes what it puts aside: with its settings it is taken up again; so are the
answers. Results as they are now (save_dir, answers, tables) are never touched. Exit status: 0 done,
1 not done, 2 the command line is wrong.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mindtune.engines.cleaning import (
    Removable,
    chosen,
    removable_below,
    remove_for_good,
)
from mindtune.errors import UserError


def agreed(asides: Sequence[Removable]) -> bool:
    """Ask whether these may be removed.

    Raises
    ------
    UserError: nobody is there to answer.
    """
    for aside in asides:
        print(aside.line())
    if not sys.stdin.isatty():
        raise UserError("nothing is removed: say --yes to remove these without a question.")
    try:
        return input("Remove these for good? [y/N] ").strip().lower() in ("y", "yes")
    except (EOFError, KeyboardInterrupt):
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="as the list shows it")
    parser.add_argument("--all", action="store_true", help="all that is listed")
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="default: results"
    )
    given = parser.parse_args(arguments)
    if given.yes and not (given.names or given.all):
        parser.error("--yes: name what to remove, or say --all")
    if given.names and given.all:
        parser.error("--all: leave the names out")
    try:
        found = list(removable_below(given.results))
        asides = found if given.all else chosen(found, given.names)
        if not found:
            print(f"Nothing is put aside below {given.results}.")
        elif not asides:
            print("\n".join(aside.line() for aside in found))
        elif given.yes or agreed(asides):
            for aside in asides:
                remove_for_good(aside)
                print(f"removed {aside.name}")
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
