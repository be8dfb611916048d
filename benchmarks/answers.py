#!/usr/bin/env python3
"""Answering with `hf` against vLLM: prompts and tokens a second, of the same model and prompts in one run.

  python benchmarks/answers.py RESULTS --python VLLM_PYTHON [--device cpu] [--repeat 3]
  python benchmarks/answers.py --model DIR --prompts FILE --images DIR --python VLLM_PYTHON --device cuda --precision bf16

RESULTS are those of a finished demo, whose exported model is asked its 401 questions. hf answers one by one,
in batches of 32 as the demo does, and by a token budget. Every run is a process of its own, as a job is, and
loads its model; they take turns, and the fastest of each counts. Answers differing from those of hf one by one
are counted. Prints a Markdown table, with the load of the machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

ONE = """
import json, logging, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from mindtune.engines import stage
from mindtune.engines.requests import AnswerJob
given = json.loads(sys.argv[2])
job = AnswerJob.of(given["engine"], **{name: Path(value) if name in PATHS else value for name, value in given["job"].items()})
stage(given["engine"], "answer")(job)
"""
PATHS = ("prompts", "images", "model_dir", "hf_dir", "answers")


@dataclass
class Way:
    """A way to answer. section: of the engine's machine."""

    name: str
    engine: str
    answer: dict
    section: dict


def ways(given: argparse.Namespace) -> list[Way]:
    threads = {"device": given.device, "precision": given.precision, "threads": given.threads}
    vllm = threads | {"python": given.python, "arguments": given.arguments.split()}
    return [
        Way("hf, one by one", "hf", {"batch_size": 1}, threads),
        Way("hf, batches of 32", "hf", {"batch_size": 32}, threads),
        Way("hf, 16,384 tokens a batch", "hf", {"batch_size": 256, "tokens_per_batch": 16_384}, threads),
        Way("vLLM", "vllm", {"batch_size": 1}, vllm),
    ]  # fmt: skip


def run(way: Way, given: argparse.Namespace, place: Path) -> tuple[float, list[dict]]:
    """Seconds of a whole process, and the lines of its answers."""
    answers = place / "answers.jsonl"
    answers.unlink(missing_ok=True)
    job = {
        "prompts": str(given.prompts), "images": str(given.images), "model_dir": str(given.model),
        "hf_dir": str(given.model), "answers": str(answers),
        "answer": {"max_new_tokens": given.max_new_tokens} | way.answer,
        "processor": {"image_resolution": 512 * 512}, "parallel": None,
        "machine": way.section, "operation": way.section,
    }  # fmt: skip
    code = ONE.replace("PATHS", repr(PATHS))
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "scripts"), json.dumps({"engine": way.engine, "job": job})],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    if done.returncode:
        sys.exit(f"{way.name} failed:\n{done.stderr[-2000:]}")
    return seconds, [
        json.loads(line) for line in answers.read_text(encoding="utf-8").split("\n") if line
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="?")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--prompts", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--python", required=True, help="as vllm.python")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--arguments", default="", help="as vllm.arguments, in one text")
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    if given.results:
        given.model = given.model or given.results / "baseline/hf"
        given.prompts = given.prompts or given.results / "shared/prompts.jsonl"
        given.images = given.images or given.results / "sources/COCO2017/train2017"
    if not (given.model and given.prompts and given.images):
        parser.error("give RESULTS, or --model, --prompts and --images")
    best: dict[str, tuple[float, list[dict]]] = {}
    begun = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as made:
        for _ in range(given.repeat):
            for way in ways(given):
                found = run(way, given, Path(made))
                best[way.name] = min(best.get(way.name, found), found, key=lambda one: one[0])
    first = next(iter(best.values()))[1]
    print(f"{len(first)} prompts, {given.device}, {given.precision}, {given.threads} thread(s), best of "
          f"{given.repeat}; load {begun:.1f} before, {os.getloadavg()[0]:.1f} after\n")  # fmt: skip
    print("| way | s, loading counted | s of answering | prompts/s | tokens/s | other answers |")
    print("|---|---|---|---|---|---|")
    for name, (seconds, lines) in best.items():
        own = sum(line["seconds"] for line in lines)
        tokens = sum(line["tokens"] for line in lines)
        other = sum(a["answer"] != b["answer"] for a, b in zip(first, lines, strict=True))
        print(
            f"| {name} | {seconds:.1f} | {own:.1f} | {len(lines) / own:.1f} | {tokens / own:.0f} | {other} |"
        )


if __name__ == "__main__":
    main()
