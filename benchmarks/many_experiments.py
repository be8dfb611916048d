"""How long a dry run takes, by the number of experiments: python benchmarks/many_experiments.py

Columns: experiments, what they differ in, target, jobs, seconds of the processor, wall seconds, GB.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("rules", "scripts", "config", "profiles", "report")
OVERLAYS = {
    "trainings": lambda n: {"train": {"seed": n}},
    "data": lambda n: {"data": {"split_seed": n}},
}


def measure(place: Path, number: int, differ: str, target: str) -> str:
    path = place / "config/config.yaml"
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    config["experiments"] = {f"e{n}": OVERLAYS[differ](n + 2) for n in range(number)}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "1", "-n", "-q", "rules", "--", target],
            cwd=place, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        output.seek(0)
        said = output.read()
    if status:
        sys.exit(said)
    jobs = next(line.split()[1] for line in said.splitlines() if line.startswith("total"))
    busy = used.ru_utime + used.ru_stime
    return f"{number:5} {differ:10} {target:20} {jobs:>6} {busy:6.1f} {wall:6.1f} {used.ru_maxrss / 1e6:5.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--numbers", type=int, nargs="+", default=[100, 1000])
    numbers = parser.parse_args().numbers
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        shutil.copy2(ROOT / "Snakefile", place)
        for part in PARTS:
            shutil.copytree(ROOT / part, place / part)
        for number in numbers:
            print(measure(place, number, "trainings", "results/compare.csv"), flush=True)
            print(measure(place, number, "trainings", "all"), flush=True)
            print(measure(place, number, "data", "results/compare.csv"), flush=True)


if __name__ == "__main__":
    main()
