"""Kill the main job at random moments, give the same command again, and compare the bytes.

python tests/chaos.py --kills 20 --seed 1            the workflow in miniature
python tests/chaos.py --kills 20 --in-a-row 4        the same run is hit four times
python tests/chaos.py --kills 3 --demo               the demo itself
python tests/chaos.py --kills 110 --every-rule       every rule in turn, and convert_checkpoint.py

One undisturbed run is the measure. A run in a new directory gets a signal at a random moment:
Snakemake alone, the job alone, or all of them. Then the command is given again, as it is, (and is
hit again, or) until it ends well; every file in results/ must then have the bytes of the
undisturbed run, but for what tells the time:

- results/benchmarks/: what each job took;
- loss.csv: the columns ms_per_iteration, samples_per_second and tokens_per_second;
- scores.csv, metrics.csv: seconds and tokens per second;
- answers_*.jsonl: `seconds`;
- provenance.json: the seconds of the jobs; report.html, loss.svg and check.html, drawn from these;
- hidden files: locks, and Snakemake's time stamps of directories.

With --every-rule a kill strikes while a job of its rule runs, in one of two workflows: the demo, or
pictures and instructions that a server of this process has, both with all that `all` makes.

Prints a table; exit status 1 when anything differs or a command does not end.
"""

import argparse
import contextlib
import csv
import hashlib
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
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))

from sources.server import Server
from workflow.conftest import SMALL, Checkout, merged

TARGET = ("results/compare.csv",)
EVERYTHING = ("all", "results/shared/data/check.html")
CLI = "convert_checkpoint.py"
ONE_EXPERIMENT = {**SMALL, "experiments": {"baseline": {}}}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TARGETS = ("snakemake", "job", "group")
TIMES = ("ms_per_iteration", "samples_per_second", "tokens_per_second")
CLOCKS = ("seconds", "tokens_per_second")
# Commands after which a run must have ended well: one that may say what to type, and one more.
MOST_COMMANDS = 3
SECONDS = 900
MARKS = ("n earlier run", "LockException", "another training", "from iteration", "Traceback")
HEAD = """\
| moment | rule                 | signal  | target    | commands | identical | said |
|---|---|---|---|---|---|---|"""


@dataclass
class Kill:
    """One signal, and what came of it."""

    moment: float
    number: signal.Signals
    target: str
    rule: str = ""
    wanted: str = ""
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
    if Path(name).name in ("scores.csv", "metrics.csv"):
        rows = list(csv.DictReader(io.StringIO(content.decode())))
        return json.dumps(
            [
                {k: v for k, v in row.items() if not k.startswith(CLOCKS)}
                for row in rows
                if row.get("metric") not in CLOCKS
            ]
        ).encode()
    if Path(name).name == "provenance.json":
        kept = json.loads(content)
        return json.dumps({key: kept[key] for key in ("config", "seeds", "weights")}).encode()
    if Path(name).suffix in (".svg", ".html"):
        return b"drawn"
    if Path(name).name.startswith("answers_") and name.endswith(".jsonl"):
        lines = [json.loads(line) | {"seconds": None} for line in content.split(b"\n") if line]
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


def begin(checkout: Checkout, targets: Sequence[str] = TARGET) -> subprocess.Popen:
    """Start the command, as the leader of a process group of its own."""
    with open(checkout.path / "killed.log", "wb") as printed:
        return subprocess.Popen(
            checkout.command(*targets), cwd=checkout.path, start_new_session=True,
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


def go_on(checkout: Checkout, kill: Kill, targets: Sequence[str] = TARGET) -> None:
    """Give the command again until it ends well, and keep what it says of the interruption."""
    printed = ""
    for kill.commands in range(1, MOST_COMMANDS + 1):
        done = subprocess.run(
            checkout.command(*targets), cwd=checkout.path, text=True, timeout=SECONDS,
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
    checkout.snakemake(*TARGET)
    return contents(place), time.monotonic() - begun


def fetched(server: Server, pictures: Path, instructions: Path) -> dict:
    """The workflow in miniature with sources that are fetched from a server and unpacked."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(pictures.glob("*.jpg")):
            archive.write(path, f"coco/{path.name}")
    server.files = {"coco.zip": packed.getvalue(), "llava.json": instructions.read_bytes()}
    chosen = {kind: {"use": "url", "url": server.url(name)}
              for kind, name in (("images", "coco.zip"), ("instructions", "llava.json"))}  # fmt: skip
    return merged(ONE_EXPERIMENT, {"sources": chosen})


@dataclass
class Scene:
    """A workflow, what its files are like undisturbed, and how long each rule's jobs take."""

    config: Mapping
    wanted: Mapping[str, bytes]
    seconds: Mapping[str, float]


def observed(place: Path, config: Mapping) -> Scene:
    """Run everything undisturbed, and see how long the first job of each rule takes."""
    checkout = Checkout.make(place, config)
    process, seen = begin(checkout, EVERYTHING), {}
    while process.poll() is None:
        job, rule = job_of(process.pid)
        if job is not None:
            now = time.monotonic()
            first, process_id, _ = seen.get(rule, (now, job.pid, now))
            if job.pid == process_id:
                seen[rule] = (first, process_id, now)
        time.sleep(0.01)
    if process.returncode:
        sys.exit((checkout.path / "killed.log").read_text(errors="replace"))
    return Scene(
        config, contents(place), {rule: end - first for rule, (first, _, end) in seen.items()}
    )


def strike_rule(place: Path, scene: Scene, kill: Kill) -> Checkout:
    """Begin, wait for a job of the kill's rule, and strike so many seconds after it began."""
    checkout = Checkout.make(place, scene.config)
    process = begin(checkout, EVERYTHING)
    while process.poll() is None and job_of(process.pid)[1] != kill.wanted:
        time.sleep(0.01)
    time.sleep(kill.moment)
    if process.poll() is not None:
        kill.different += ("(it ended before the kill)",)
        return checkout
    strike(process, kill)
    if kill.target == "job" or kill.number != signal.SIGKILL:
        process.wait(timeout=SECONDS)
    return checkout


def conversion(model: Path, place: Path) -> list[str]:
    """The command that converts a model in Hugging Face's form."""
    return [sys.executable, str(Path(__file__).parents[1] / "scripts/convert_checkpoint.py"),
            "hf-to-mm", "--hf-dir", str(model), "--mm-dir", str(place / "mm"), "--tp", "2",
            "--llm-pp-layers", "[[4]]", "--vit-pp-layers", "[[4]]"]  # fmt: skip


def strike_cli(command: Sequence[str], place: Path, wanted: bytes, kill: Kill) -> None:
    """Kill a conversion on the command line, and give it again."""
    kill.rule, kill.target, kill.commands = CLI, "job", 1
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=kill.moment)
    process.send_signal(kill.number)
    process.wait(timeout=SECONDS)
    if tree(place / "mm") != wanted:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        kill.said = done.stderr.strip().replace("\n", " ") if done.returncode else "-"
    if tree(place / "mm") != wanted:
        kill.different += ("mm",)


def tree(place: Path) -> bytes:
    """All files below a directory, by name and content."""
    return json.dumps(
        {
            str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(place.rglob("*"))
            if path.is_file()
        }
    ).encode()


def every_rule(options: argparse.Namespace, show: Callable[[str], None]) -> int:
    """Kills dealt out to every rule in turn, and to convert_checkpoint.py."""
    rng, right = random.Random(options.seed), Counter()
    with tempfile.TemporaryDirectory() as directory, Server() as server:
        place = Path(directory)
        demo = observed(place / "demo", ONE_EXPERIMENT)
        sources = place / "demo/results/sources"
        other = observed(
            place / "fetched",
            fetched(server, sources / "COCO2017/train2017", sources / "llava_instruct_150k.json"),
        )
        model, begun = sources / "Qwen2-VL-demo", time.monotonic()
        subprocess.run(conversion(model, place / "cli"), check=True, stderr=subprocess.DEVNULL)
        converting, converted = time.monotonic() - begun, tree(place / "cli/mm")
        scenes = dict.fromkeys(other.seconds, other) | {
            rule: demo for rule in demo.seconds if rule not in other.seconds
        }
        rules = [*sorted(scenes), CLI]
        show(HEAD)
        struck = Counter(rules[number % len(rules)] for number in range(options.kills))
        for number in range(options.kills):
            rule = rules[number % len(rules)]
            kill = Kill(rng.random(), rng.choice(SIGNALS), rng.choice(TARGETS), wanted=rule)
            here = place / str(number)
            if rule == CLI:
                kill.moment *= converting
                strike_cli(conversion(model, here), here, converted, kill)
            else:
                kill.moment *= scenes[rule].seconds[rule]
                checkout = strike_rule(here, scenes[rule], kill)
                go_on(checkout, kill, EVERYTHING)
                kill.different += differences(contents(here), scenes[rule].wanted)
            show(kill.line())
            right[rule] += not kill.different
            shutil.rmtree(here, ignore_errors=True)
    show("\n| rule | right | kills |\n|---|---|---|")
    for rule in rules:
        show(f"| {rule} | {right[rule]} | {struck[rule]} |")
    show(f"\n{right.total()} of {options.kills} right")
    return 1 if right.total() < options.kills else 0


def main(arguments: list[str], show: Callable[[str], None] = print) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--in-a-row", type=int, default=1, metavar="N", help="kills per run")
    parser.add_argument("--demo", action="store_true", help="the demo itself, not in miniature")
    parser.add_argument("--every-rule", action="store_true", help="kills dealt out to every rule")
    options = parser.parse_args(arguments)
    if options.every_rule:
        return every_rule(options, show)
    config = {} if options.demo else ONE_EXPERIMENT
    rng = random.Random(options.seed)
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        wanted, seconds = measure(place / "undisturbed", config)
        show(f"undisturbed: {len(wanted)} files, {seconds:.1f} s\n")
        show(HEAD)
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
