"""Take over finished results that other code made, as after an upgrade; nothing is run.

    python scripts/adopt.py                    what can be taken over, what can't, and why
    python scripts/adopt.py --yes              takes it over; the next command doesn't run it again
    python scripts/adopt.py --again baseline   puts the checkpoints of baseline aside instead, and the
                                               next command trains it again

Results that anything else than code makes other ones (a key, a file, a result that is gone) are left.
What is taken over says so, in results/.made, in save_dir/settings.json and in provenance.json. Tables
and pages are read off the answers again, in seconds, by the next command. Exit status: 0 done, 1 not
done, 2 the command line is wrong.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mindtune.errors import UserError
from mindtune.glue import adopting
from mindtune.glue.explain import known_code
from mindtune.glue.plan import Plan, PlanError, plan
from mindtune.glue.run_lock import alone

OPTIONS = ("--configfile", "--config", "--snakefile", "--profile")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", help="as for snakemake; default: results/compare.csv")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--yes", action="store_true", help="take over what can be")
    chosen.add_argument("--again", metavar="EXPERIMENT", help="put its checkpoints aside instead")
    for option in OPTIONS:
        parser.add_argument(option, action="append", help="as for snakemake, one value at a time")
    given = vars(parser.parse_args(arguments))
    command = list(given["targets"]) or ["results/compare.csv"]
    for option in OPTIONS:
        command += [option, *values] if (values := given[option[2:]]) else []
    try:
        with alone(Path(".snakemake")) as said:
            if said:
                print(said, file=sys.stderr)
            found = plan(command)
            if given["again"]:
                aside = adopting.again(adopting.trainings(found), given["again"])
                print(
                    f"{given['again']}: checkpoints put aside as {aside}; the next command trains."
                )
            else:
                print("\n".join(answer(found, command, given["yes"])))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except PlanError as error:
        if str(error):
            print(error, file=sys.stderr)
        return 1
    return 0


def answer(found: Plan, command: Sequence[str], yes: bool) -> list[str]:
    """Lines: what is, or can be, taken over, what runs all the same, and what to do."""
    candidates = adopting.candidates(found)
    after = plan(command, adopting.assumed(candidates)) if candidates else found
    adoptions = adopting.adoptable(candidates, after)
    trainings = adopting.trainings(found)
    if yes:
        adopting.take_over(adoptions, trainings)
    lines = [one.line() for one in (*trainings, *adoptions)]
    if lines:
        head = "Taken over from other code:" if yes else "Of other code, and of no other settings:"
        lines = [head, *(f"  {line}" for line in lines)]
        lines += [f"    {text}" for text in adopting.changed_code(adoptions, known_code(found))]
    else:
        lines = ["Nothing is to be taken over."]
    left = list(adopting.reasons(after))
    if left:
        lines += ["Left as they are, to run again with the next command:"]
        lines += [f"  {line}" for line in left]
    if (trainings or adoptions) and not yes:
        lines += ["Nothing is changed yet: say --yes to take over what can be."]
    return lines


if __name__ == "__main__":
    sys.exit(main())
