"""Kill the main job at random moments, give the same command again, and compare the bytes.

python tests/chaos.py --kills 20 --seed 1            the workflow in miniature
python tests/chaos.py --kills 20 --in-a-row 4        the same run is hit four times
python tests/chaos.py --kills 3 --demo               the demo itself

One undisturbed run is the measure. A run in a new directory gets a signal at a random moment:
Snakemake alone, the job alone, or all of them. Then the command is given again, as it is, (and is
hit again, or) until it ends well; every file in results/ must then have the bytes of the
undisturbed run, but for what tells the time:

- results/benchmarks/: what each job took;
- loss.csv: the columns ms_per_iteration and samples_per_second;
- answers_*.jsonl: `seconds`;
- hidden files: locks, and Snakemake's time stamps of directories.

Prints a table; exit status 1 when anything differs or a command does not end.
"""

import argparse
import csv
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))

from workflow.conftest import SMALL, Checkout

TARGET = "results/compare.csv"
ONE_EXPERIMENT = {**SMALL, "experiments": {"baseline": {}}}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TARGETS = ("snakemake", "job", "group")
TIMES = ("ms_per_iteration", "samples_per_second")
# Commands after which a run must have ended well: one that may say what to type, and one more.
MOST_COMMANDS = 3
SECONDS = 900
MARKS = ("n earlier run", "LockException", "another training", "from iteration", "Traceback")


@dataclass
class Kill:
    """One signal, and what came of it."""

    moment: float
    number: signal.Signals
    target: str
    rule: str = ""
    said: str = ""
    commands: int = 0
    different: tuple[str, ...] = ()

    def line(self) -> str:
        same = "yes" if not self.different else "NO: " + ", ".join(self.different)
        return (
            f"| {self.moment:6.2f} | {self.rule:20} | {self.number.name:7} | {self.target:9} "
            f"| {self.commands} | {same:9} | {self.said} |"
        )


def without_times(name: str, content: bytes) -> bytes:
    """A file's content, less what tells the time."""
    if name.endswith("loss.csv"):
        rows = list(csv.DictReader(io.StringIO(content.decode())))
        return json.dumps(
            [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
        ).encode()
    if Path(name).name.startswith("answers_"):
        lines = [json.loads(line) | {"seconds": None} for line in content.splitlines()]
        return json.dumps(lines).encode()
    return content


def contents(checkout: Path) -> dict[str, bytes]:
    """Every file below results/ by its path, but those that say when, how long and by whom."""
    results = checkout / "results"
    found = {}
    for path in sorted(results.rglob("*")):
        name = str(path.relative_to(results))
        is_own = name.startswith("benchmarks/") or path.name in (
            ".save_dir.lock",
            ".snakemake_timestamp",
        )
        if path.is_file() and not is_own:
            found[name] = without_times(name, path.read_bytes())
    return found


def differences(found: Mapping[str, bytes], wanted: Mapping[str, bytes]) -> tuple[str, ...]:
    return tuple(sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name)))


def begin(checkout: Checkout) -> subprocess.Popen:
    """Start the command, as the leader of a process group of its own."""
    with open(checkout.path / "killed.log", "wb") as printed:
        return subprocess.Popen(
            checkout.command(TARGET), cwd=checkout.path, start_new_session=True,
            stdout=printed, stderr=subprocess.STDOUT,
        )  # fmt: skip


def job_of(snakemake: int) -> tuple[psutil.Process | None, str]:
    """The job's process and its rule, if one runs."""
    try:
        for child in psutil.Process(snakemake).children():
            for part in child.cmdline():
                if "/.snakemake/scripts/" in part:
                    return child, Path(part).name.split(".", 1)[1].removesuffix(".py")
    except psutil.Error:
        pass
    return None, "(no job)"


def strike(process: subprocess.Popen, kill: Kill) -> None:
    """Send the signal now, to what runs now; Snakemake itself where no job runs."""
    job, kill.rule = job_of(process.pid)
    if kill.target == "job" and job is None:
        kill.target = "snakemake"
    if kill.target == "group":
        os.killpg(process.pid, kill.number)
    elif kill.target == "job":
        job.send_signal(kill.number)
    else:
        process.send_signal(kill.number)


def go_on(checkout: Checkout, kill: Kill) -> None:
    """Give the command again until it ends well, and keep what it says of the interruption."""
    printed = ""
    for kill.commands in range(1, MOST_COMMANDS + 1):
        done = subprocess.run(
            checkout.command(TARGET), cwd=checkout.path, text=True, timeout=SECONDS,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        printed += done.stdout
        if done.returncode == 0:
            break
        if "Traceback" in done.stdout or kill.commands == MOST_COMMANDS:
            kill.different += ("(the command failed)",)
            sys.stderr.write(done.stdout)
            break
    kill.said = told_in(printed)


def told_in(printed: str) -> str:
    """What a command says of an interruption before it."""
    found = [line for line in printed.splitlines() if any(mark in line for mark in MARKS)]
    return "; ".join(found) or "-"


def interrupt(checkout: Checkout, kill: Kill) -> bool:
    """Start, strike at the moment, and let what gives up by itself come to its end.

    After a SIGKILL to Snakemake the next command comes at once, whatever still runs.
    Returns False when the run had ended before the moment.
    """
    process = begin(checkout)
    end = time.monotonic() + kill.moment
    while time.monotonic() < end:
        if process.poll() is not None:
            return False
        time.sleep(0.02)
    strike(process, kill)
    if kill.target == "job" or kill.number != signal.SIGKILL:
        process.wait(timeout=SECONDS)
    return True


def trial(place: Path, config: Mapping, kills: Sequence[Kill], wanted: Mapping[str, bytes]) -> None:
    """Runs that are hit by each kill in turn.

    A run that ends before the next moment is compared, and a new one is begun; from its start the
    moment comes earlier where it has to.
    """
    checkout, hit = Checkout.make(place, config), []
    for kill in kills:
        while not interrupt(checkout, kill):
            judge(checkout, hit, wanted)
            kill.moment /= 1 if hit else 2
            shutil.rmtree(place)
            checkout, hit = Checkout.make(place, config), []
        if hit:
            note(checkout, hit[-1])
        hit.append(kill)
    go_on(checkout, kill)
    judge(checkout, hit, wanted)


def note(checkout: Checkout, kill: Kill) -> None:
    """Keep what the command after a kill said, which was killed too or ended well."""
    kill.commands = 1
    kill.said = told_in((checkout.path / "killed.log").read_text(errors="replace"))


def judge(checkout: Checkout, hit: Sequence[Kill], wanted: Mapping[str, bytes]) -> None:
    """Compare a run that has ended with the undisturbed one."""
    different = differences(contents(checkout.path), wanted)
    for kill in hit:
        kill.different += different
    if hit and not hit[-1].commands:
        note(checkout, hit[-1])


def drawn(rng: random.Random, seconds: float) -> Kill:
    return Kill(rng.uniform(0, seconds), rng.choice(SIGNALS), rng.choice(TARGETS))


def measure(place: Path, config: Mapping) -> tuple[dict[str, bytes], float]:
    """An undisturbed run: the content of its files, and how long it took."""
    checkout = Checkout.make(place, config)
    begun = time.monotonic()
    checkout.snakemake(TARGET)
    return contents(place), time.monotonic() - begun


def main(arguments: list[str], show: Callable[[str], None] = print) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--in-a-row", type=int, default=1, metavar="N", help="kills per run")
    parser.add_argument("--demo", action="store_true", help="the demo itself, not in miniature")
    options = parser.parse_args(arguments)
    config = {} if options.demo else ONE_EXPERIMENT
    rng = random.Random(options.seed)
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        wanted, seconds = measure(place / "undisturbed", config)
        show(f"undisturbed: {len(wanted)} files, {seconds:.1f} s\n")
        show(
            "| moment | rule                 | signal  | target    | commands | identical | said |"
        )
        show("|---|---|---|---|---|---|---|")
        for number in range(0, options.kills, options.in_a_row):
            kills = [drawn(rng, seconds) for _ in range(options.in_a_row)]
            trial(place / f"{number}", config, kills, wanted)
            for kill in kills:
                show(kill.line())
                failed += bool(kill.different)
            shutil.rmtree(place / f"{number}", ignore_errors=True)
    show(f"\n{options.kills - failed} of {options.kills} identical")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
