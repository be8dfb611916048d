#!/usr/bin/env python3
"""Conversion, unpacking and reading at full size, side by side with the tools they replace.

  python benchmarks/data.py PLACE [--mindspeed MINDSPEED_MM_HOME] [--times 1 10] [--repeat 5]
  python benchmarks/data.py PLACE --zip [--files 20000] [--mean-bytes 50000]

PLACE is filled with generated data (some 0.7 GB, ten times as much with `--times 10`, 3 GB with
`--zip`), and what is there already is used again. Tables are printed as Markdown. Runs of the
compared programs take turns, and the best of them counts: what disturbs only adds.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import llava_like

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
TOOL = "examples/qwen2vl/llava_instruct_2_mllm_demo_format.py"
PREFIX = "./data/COCO2017/train2017"
OURS = """
import sys
sys.path.insert(0, {scripts!r})
from functools import partial
from pathlib import Path
from mindtune.data.mllm import convert
from mindtune.progress import progress
here = Path("data")
convert(here / "llava_instruct_150k.json", here / "COCO2017/train2017", *map(Path, sys.argv[2:]),
        held_out_fraction={fraction}, split_seed=1, max_dropped_fraction=0.01, image_prefix={prefix!r},
        check_pictures=sys.argv[1], progress=partial(progress, what="converting", unit="records"))
"""


@dataclass
class Run:
    """What a process took: seconds by the clock and of the processor, peak memory in MiB."""

    wall: float
    cpu: float
    peak: float


def measure(command: list, place: Path) -> Run:
    begun = time.perf_counter()
    with open(place / "output.log", "wb") as log:
        process = subprocess.Popen(command, cwd=place, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    if status:
        sys.exit(f"{command[0]} failed; see {place / 'output.log'}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def best(runs: list[Run]) -> Run:
    return Run(*(min(getattr(run, name) for run in runs) for name in ("wall", "cpu", "peak")))


def generate(place: Path, times: int) -> None:
    """LLaVA-like instructions, and small JPEGs."""
    data = place / "data"
    if (data / "complete").exists():
        return
    llava_like.generate(data, 157_712 * times)
    (data / "complete").touch()


def conversion(place: Path, times: list[int], repeat: int, mindspeed: Path | None) -> None:
    print("| records | program | wall s | CPU s | peak MiB | wall / tool | peak / tool |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for factor in times:
        here = place / f"records-x{factor}"
        generate(here, factor)
        tool_output = here / "data" / "mllm_format_llava_instruct_data.json"
        ours = [str(here / name) for name in ("train.json", "held_out.json", "report.json")]
        code = OURS.format(scripts=str(ROOT / "scripts"), prefix=PREFIX, fraction=0.0)
        programs = {
            # `size` remembers what it has looked at: its best run is one after the first.
            f"mindtune, pictures by {check}": [sys.executable, "-c", code, check, *ours]
            for check in ("size", "signature")
        }
        if mindspeed:
            programs = {"the framework's tool": [sys.executable, mindspeed / TOOL]} | programs
        runs: dict[str, list[Run]] = {name: [] for name in programs}
        for _ in range(repeat):
            for name, command in programs.items():
                tool_output.unlink(missing_ok=True)
                runs[name].append(measure(command, here))
                if "tool" in name:
                    shutil.move(tool_output, here / "theirs.json")
        base = best(runs["the framework's tool"]) if mindspeed else None
        for name, found in runs.items():
            run = best(found)
            ratios = f"{run.wall / base.wall:.2f} | {run.peak / base.peak:.3f}" if base else " | "
            print(
                f"| {157_712 * factor} | {name} | {run.wall:.2f} | {run.cpu:.2f} | {run.peak:.0f} "
                f"| {ratios} |",
                flush=True,
            )
        if mindspeed:
            same = (here / "theirs.json").read_bytes() == (here / "train.json").read_bytes()
            print(f"\nThe outputs are {'the same, byte for byte' if same else 'NOT THE SAME'}.\n")
        report = json.loads((here / "report.json").read_text())
        print(f"Kept {report['kept']['train']} of {report['records']}; {report['dropped']}.\n")


def make_zip(path: Path, files: int, mean: int) -> None:
    """A zip like COCO's: twelve-digit names in one directory, stored, sizes around the mean."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    partial = path.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w") as archive:
        for number in range(files):
            size = max(2000, int(rng.lognormvariate(0, 0.4) * mean / 1.08))
            archive.writestr(
                f"train2017/{number:012d}.jpg", b"\xff\xd8\xff\xe0" + rng.randbytes(size)
            )
    partial.replace(path)


def archives(place: Path, files: int, mean: int, repeat: int) -> None:
    from mindtune.data.pictures import picture_file

    source = place / "coco-like" / "train2017.zip"
    make_zip(source, files, mean)
    here = source.parent
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
        "from pathlib import Path\nfrom mindtune.data.unpack import unpack\n"
        "unpack(Path('train2017.zip'), Path('ours/train2017'), threads=int(sys.argv[1]))"
    )
    programs = {
        "unzip": ["unzip", "-q", "train2017.zip", "-d", "theirs"],
        "mindtune, 1 thread": [sys.executable, "-c", code, "1"],
        "mindtune, 2 threads": [sys.executable, "-c", code, "2"],
    }
    runs: dict[str, list[Run]] = {name: [] for name in programs}
    for turn in range(repeat):
        # Creating files costs more in the wake of deleting others: each program goes first once.
        names = list(programs)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            command = programs[name]
            for directory in ("ours", "theirs"):
                shutil.rmtree(here / directory, ignore_errors=True)
            os.sync()
            runs[name].append(measure(command, here))
    base = best(runs["unzip"])
    print(f"{files} files, {source.stat().st_size / 1e6:.0f} MB\n")
    print("| program | wall s | CPU s | peak MiB | wall / unzip |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, found in runs.items():
        run = best(found)
        ratio = run.wall / base.wall
        print(f"| {name} | {run.wall:.2f} | {run.cpu:.2f} | {run.peak:.0f} | {ratio:.2f} |")

    names = [path.name for path in (here / "ours" / "train2017").iterdir()]
    random.Random(1).shuffle(names)
    seconds: dict[str, float] = {}
    for _ in range(repeat):
        for title, root in (
            ("loose files", here / "ours" / "train2017"),
            ("the zip (its table read before)", source),
        ):
            picture_file(root / names[0])
            begun = time.perf_counter()
            for name in names:
                found = picture_file(root / name)
                found.read_bytes() if isinstance(found, Path) else found.getvalue()
            took = time.perf_counter() - begun
            seconds[title] = min(took, seconds.get(title, took))
    print("\n| pictures read in a shuffled order from | µs each |\n| --- | ---: |")
    for title, took in seconds.items():
        print(f"| {title} | {took / len(names) * 1e6:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("place", type=Path)
    parser.add_argument("--mindspeed", type=Path, default=os.environ.get("MINDSPEED_MM_HOME"))
    parser.add_argument("--times", type=int, nargs="+", default=[1])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--zip", action="store_true")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--mean-bytes", type=int, default=50_000)
    options = parser.parse_args()
    place = options.place.resolve()
    if options.zip:
        archives(place, options.files, options.mean_bytes, options.repeat)
    else:
        conversion(place, options.times, options.repeat, options.mindspeed)


if __name__ == "__main__":
    main()
