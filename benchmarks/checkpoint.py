#!/usr/bin/env python3
"""Time and peak memory of the checkpoint converter, beside `cp` and the framework's mm-convert.

    python benchmarks/checkpoint.py WORK_DIR                 # 2B shapes, 4.4 GB
    python benchmarks/checkpoint.py WORK_DIR --model 7b      # 7B shapes, 17 GB, memory at pp 4

WORK_DIR needs room for four times the 2B model (18 GB), and once for the 7B model, whose
source is a file of holes, for only memory is measured there. What is made is deleted at the end.
Each case runs `--repeats` times, in turn with `cp -r` of the same source, and which of the two
goes first alternates, for what a run leaves behind (free memory that a virtual machine has given
back to its host, above all) slows the next. Before each, the last result is deleted and
everything flushed (sync), so the disk is idle and both write a new file; the source is in the
page cache. No run is left out. Seconds are wall-clock, interpreter start-up
included: medians, the best run in brackets. CPU seconds are user and system together (what to
look at when others use the machine as well). Memory is the largest resident set (ru_maxrss).
`cp` does not flush to disk, nor does the converter by default; `--sync` measures both flushed.
With MINDSPEED_MM_HOME set (and MINDSPEED_MM_PYTHON, an interpreter with its requirements),
mm-convert runs too.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONVERT = [sys.executable, str(ROOT / "scripts/convert_checkpoint.py")]

MODELS = {
    "tiny": {"layers": 4, "hidden": 64, "ffn": 96, "heads": 4, "kv": 2, "vocab": 512, "tied": True},
    "2b": {
        "layers": 28, "hidden": 1536, "ffn": 8960, "heads": 12, "kv": 2,
        "vocab": 151936, "tied": True,
    },
    "7b": {
        "layers": 28, "hidden": 3584, "ffn": 18944, "heads": 28, "kv": 4,
        "vocab": 152064, "tied": False,
    },
}  # fmt: skip


def config_of(model: dict) -> dict:
    """The published config.json, as far as the shapes and transformers 4.45 need it."""
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "hidden_size": model["hidden"],
        "intermediate_size": model["ffn"],
        "max_window_layers": model["layers"],
        "num_attention_heads": model["heads"],
        "num_hidden_layers": model["layers"],
        "num_key_value_heads": model["kv"],
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": model["tied"],
        "torch_dtype": "bfloat16",
        "vocab_size": model["vocab"],
        "vision_config": {
            "depth": 32 if model["hidden"] > 64 else 4,
            "embed_dim": 1280 if model["hidden"] > 64 else 32,
            "hidden_size": model["hidden"],
            "in_chans": 3,
            "mlp_ratio": 4,
            "num_heads": 16 if model["hidden"] > 64 else 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    }


def generate(directory: Path, model: dict, holes: bool) -> None:
    """Write a Hugging Face directory of random finite bf16 weights (or of holes: all zero)."""
    import numpy as np

    sys.path.insert(0, str(ROOT / "scripts"))
    from mindtune.formats.safetensors_io import safetensors_header
    from mindtune.formats.views import View
    from mindtune.models.shape import model_shape
    from mindtune.models.tensors import hf_shapes

    directory.mkdir(parents=True)
    config = config_of(model)
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    views = {
        name: View(shape, "bfloat16", ()) for name, shape in hf_shapes(model_shape(config)).items()
    }
    files: list[dict[str, View]] = [{}]
    for name, view in views.items():
        if sum(v.nbytes for v in files[-1].values()) + view.nbytes > 3_990_000_000:
            files.append({})
        files[-1][name] = view
    generator = np.random.default_rng(0)
    weight_map = {}
    for k, part in enumerate(files, 1):
        name = f"model-{k:05d}-of-{len(files):05d}.safetensors"
        weight_map.update(dict.fromkeys(part, name))
        with open(directory / name, "wb") as handle:
            handle.write(safetensors_header(part)[0])
            left = sum(view.nbytes for view in part.values()) // 2
            if holes:
                handle.truncate(handle.tell() + 2 * left)
            while left and not holes:
                count = min(left, 1 << 24)
                block = np.frombuffer(generator.bytes(2 * count), np.uint16)
                handle.write((block & 0xBFFF).tobytes())  # exponent below 2**1: finite
                left -= count
    total = sum(view.nbytes for view in views.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def measure(command: list[str], **keywords) -> tuple[float, float, float]:
    """(seconds, peak MiB, CPU seconds) of a command; SystemExit with its output if it fails."""
    os.sync()
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **keywords
    )
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{output.decode()[-3000:]}")
    return seconds, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


def remove(path: Path) -> None:
    if path.exists():
        path.chmod(0o755)  # mm-convert leaves 0640
        shutil.rmtree(path)


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def mm_convert(command: str, work: Path, **options) -> tuple[list[str], dict] | None:
    """The call of the framework's converter, or None without a tree."""
    home = os.environ.get("MINDSPEED_MM_HOME")
    if not home:
        return None
    stub = work / "stub/mindspeed"
    stub.mkdir(parents=True, exist_ok=True)
    (stub / "__init__.py").touch()
    (stub / "megatron_adaptor.py").touch()
    arguments = [f"--cfg.{name.replace('__', '.')}={value}" for name, value in options.items()]
    python = os.environ.get("MINDSPEED_MM_PYTHON", sys.executable)
    call = [python, "-m", "checkpoint.convert_cli", "Qwen2VLConverter", command, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(stub.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    return call, {"cwd": home, "env": environment}


class Case:
    """One line of the table: our command, its result, the source `cp` copies, theirs."""

    def __init__(self, name: str, ours: list, result: Path, source: Path, theirs=None):
        self.name, self.result, self.source, self.theirs = name, result, source, theirs
        self.ours = [*CONVERT, *map(str, ours)]
        self.runs: dict[str, list[tuple[float, float, float]]] = {
            "ours": [],
            "cp": [],
            "theirs": [],
        }
        self.written: dict[str, int] = {}

    def once(self, kind: str, copy: Path, sync: bool, keep: Path | None = None) -> None:
        result, keywords = self.result, {}
        if kind == "cp":
            result = copy
            command = ["cp", "-r", str(self.source), str(copy)]
            if sync:
                quoted = " ".join(f"'{part}'" for part in command)
                command = ["sh", "-c", f"{quoted} && find '{copy}' -type f -exec sync {{}} +"]
        elif kind == "ours":
            command = [*self.ours, *(["--sync"] if sync else [])]
        else:
            command, keywords = self.theirs
        remove(result)
        self.runs[kind].append(measure(command, **keywords))
        result.chmod(0o755)
        self.written[kind] = size_of(result)
        if keep:
            result.rename(keep)
        remove(result)

    def row(self) -> str:
        def median(kind: str, n: int) -> float:
            return statistics.median(run[n] for run in self.runs[kind])

        def best(kind: str) -> float:
            return min(run[0] for run in self.runs[kind])

        ours, peak = median("ours", 0), max(run[1] for run in self.runs["ours"])
        written = f"{self.written['ours'] / 1e9:.2f} GB"
        if not self.runs["cp"]:
            return (
                f"| {self.name} | {written} | - | {ours:.2f} s | - | - | {peak:.0f} MiB | - | - |"
            )
        copy = median("cp", 0)
        cells = [
            self.name,
            written,
            f"{copy:.2f} s ({best('cp'):.2f})",
            f"{ours:.2f} s ({best('ours'):.2f})",
            f"**{ours / copy:.2f}**",
            f"{median('cp', 2):.2f} s, {median('ours', 2):.2f} s",
            f"{peak:.0f} MiB",
        ]
        if self.runs["theirs"]:
            theirs, theirs_peak = median("theirs", 0), max(run[1] for run in self.runs["theirs"])
            cells += [
                f"{theirs:.1f} s, {theirs_peak:,.0f} MiB, {self.written['theirs'] / 1e9:.2f} GB",
                f"{theirs / ours:.1f} x faster, {theirs_peak / peak:.0f} x less memory",
            ]
        else:
            cells += ["-", "-"]
        return "| " + " | ".join(cells) + " |"


def cases_of(work: Path, model: dict, tokens: str) -> list[Case]:
    """The cases of the table; makes the Megatron source they need."""
    hf, out = work / "hf", work / "out"
    depth = config_of(model)["vision_config"]["depth"]
    layers = model["layers"]
    hf_theirs = {"hf_config__hf_dir": hf}
    one = {"llm_pp_layers": f"[[{layers}]]", "vit_pp_layers": f"[[{depth}]]"}
    parallel = {f"parallel_config__{key}": value for key, value in one.items()}
    flat = {key: value[1:-1] for key, value in parallel.items()}
    if tokens == "7b":
        llm, vit = "[[1,10,10,7]]", f"[[{depth},0,0,0]]"
        cut = ["--llm-pp-layers", llm, "--vit-pp-layers", vit]
        to_mm = ["hf-to-mm", "--hf-dir", hf, "--mm-dir", out, *cut]
        back = ["mm-to-hf", "--mm-dir", work / "mm", "--hf-dir", hf, "--save-hf-dir", out]
        return [
            Case("7B hf-to-mm pp4", to_mm, out, hf),
            Case("7B mm-to-hf pp4", back, out, hf),
        ]
    make = ["hf-to-mm", "--hf-dir", hf, "--mm-dir", work / "mm"]
    measure([*CONVERT, *map(str, make)])
    to_mm = ["hf-to-mm", "--hf-dir", hf, "--mm-dir", out]
    back = ["mm-to-hf", "--mm-dir", work / "mm", "--hf-dir", hf, "--save-hf-dir", out]
    again = ["resplit", "--mm-dir", work / "mm", "--save-mm-dir", out, "--hf-dir", hf, "--tp", "2"]
    tp2 = {**parallel, "parallel_config__tp_size": 2}
    return [
        Case(
            "hf-to-mm tp1", to_mm, out, hf,
            mm_convert("hf_to_mm", work, mm_dir=out, **hf_theirs, **parallel),
        ),
        Case(
            "mm-to-hf tp1", back, out, work / "mm",
            mm_convert(
                "mm_to_hf", work, save_hf_dir=out, mm_dir=work / "mm", **hf_theirs, **flat
            ),
        ),
        Case(
            "hf-to-mm tp2", [*to_mm, "--tp", "2"], out, hf,
            mm_convert("hf_to_mm", work, mm_dir=out, **hf_theirs, **tp2),
        ),
        Case("resplit tp1 to tp2", again, out, work / "mm"),
        Case("hf-to-mm tp1 --verify", [*to_mm, "--verify"], out, hf),
    ]  # fmt: skip


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--model", choices=MODELS, default="2b")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--theirs", type=int, default=3, help="repeats of mm-convert")
    parser.add_argument("--sync", action="store_true", help="flush to disk, cp too")
    parser.add_argument("--generate", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.generate:
        generate(options.generate, MODELS[options.model], holes=options.model == "7b")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that we clean up
    work = options.work_dir / "mindtune-checkpoint-benchmark"
    work.mkdir(parents=True)
    try:
        # In a process of its own: a child's peak memory counts from its parent's size.
        here = [sys.executable, __file__, str(work), "--model", options.model]
        measure([*here, "--generate", str(work / "hf")])
        cases = cases_of(work, MODELS[options.model], options.model)
        print(f"medians of {options.repeats} runs, {len(os.sched_getaffinity(0))} cores\n")
        print(
            "| case | written | cp | ours | ours / cp | CPU cp, ours | peak memory | mm-convert | |"
        )
        print("|---|---|---|---|---|---|---|---|---|", flush=True)
        if options.model == "7b":  # memory only
            cases[0].once("ours", work / "copy", options.sync, keep=work / "mm")
            print(cases[0].row(), flush=True)
            for path in (work / "mm").rglob("*.pt"):
                measure(["fallocate", "--dig-holes", str(path)])
            cases[1].once("ours", work / "copy", options.sync)
            print(cases[1].row(), flush=True)
            return
        for case in cases:
            for n in range(options.repeats):
                kinds = ["cp", "ours"] if n % 2 == 0 else ["ours", "cp"]
                if case.theirs and n < options.theirs:
                    kinds.append("theirs")
                for kind in kinds:
                    case.once(kind, work / "copy", options.sync)
            print(case.row(), flush=True)
    finally:
        remove(work)


if __name__ == "__main__":
    main()
