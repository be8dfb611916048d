"""The machine and the software that a run had."""

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "torch", "torch_npu", "transformers", "accelerate", "tokenizers", "safetensors", "mindspeed",
    "mindspeed-mm", "megatron-core", "snakemake", "numpy", "pandas", "pillow", "sacrebleu",
    "rouge-score",
)  # fmt: skip


def packages() -> dict[str, str]:
    """Versions of what matters to the numbers, where it is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit(directory: Path) -> dict | None:
    """A checkout's commit, and whether it has changes of its own; None where there is no git."""
    if _git(directory, "rev-parse", "--is-inside-work-tree") != "true":
        return None
    changes = _git(directory, "status", "--porcelain", "--untracked-files=no")
    return {"commit": _git(directory, "rev-parse", "HEAD"), "dirty": bool(changes)}


def _git(directory: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(directory), *command],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def hardware() -> dict:
    """Processor, memory and accelerators."""
    return {
        "platform": platform.platform(terse=True),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "accelerators": _accelerators(),
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1) if match else platform.processor() or platform.machine()


def _accelerators() -> list[str]:
    """Names of the cards, from the driver's own tools: importing torch would take seconds."""
    queries = {
        ("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"): r"^(.+)$",
        ("npu-smi", "info"): r"^\|\s*\d+\s+(\S+)\s*\|\s*(?:OK|Warning|Alarm)",
    }
    for command, pattern in queries.items():
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
        except (OSError, subprocess.CalledProcessError):
            continue
        return re.findall(pattern, done.stdout, re.MULTILINE)
    return []
