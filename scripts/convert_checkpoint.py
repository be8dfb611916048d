#!/usr/bin/env python3
"""Convert checkpoints between Hugging Face's form and MindSpeed-MM's (Megatron).

    python scripts/convert_checkpoint.py hf-to-mm --hf-dir HF --mm-dir MM --tp 2 \\
        --llm-pp-layers '[[14, 14]]' --vit-pp-layers '[[32, 0]]' --verify
    python scripts/convert_checkpoint.py mm-to-hf --mm-dir MM --hf-dir HF --save-hf-dir OUT
    python scripts/convert_checkpoint.py resplit --mm-dir MM --save-mm-dir OUT --tp 1
    python scripts/convert_checkpoint.py inspect DIR

Neither MindSpeed-MM nor torch is needed (torch only to merge LoRA adapters). The forms are
explained in docs/checkpoints.md.

Exit status: 0 done, 1 the files or the layout do not allow it, 2 the command line is wrong.
"""

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from mindtune.checkpoint import hf_to_mm, inspect, mm_to_hf, resplit, verify
from mindtune.errors import UserError

LAYERS = "a list of layer counts, e.g. '[[14, 14]]' (rows: VPP chunks, columns: stages)"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="convert_checkpoint.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    def directory(
        sub: argparse.ArgumentParser, names: str, text: str, required: bool = True
    ) -> None:
        sub.add_argument(*names.split(), type=Path, required=required, metavar="DIR", help=text)

    def layout(sub: argparse.ArgumentParser, default_tp: int | None, prefix: str = "") -> None:
        known = "" if default_tp else "; default: read off the files, given: compared with them"
        sub.add_argument(
            f"--{prefix}tp", type=int, default=default_tp, metavar="N", help=f"tensor ranks{known}"
        )
        sub.add_argument(f"--{prefix}llm-pp-layers", metavar="LIST", help=LAYERS + known)
        sub.add_argument(f"--{prefix}vit-pp-layers", metavar="LIST", help=LAYERS + known)

    def common(sub: argparse.ArgumentParser) -> None:
        cores = min(4, len(os.sched_getaffinity(0)))
        sub.add_argument(
            "--verify", action="store_true", help="read the result back and compare all"
        )
        sub.add_argument("--overwrite", action="store_true", help="replace an existing directory")
        sub.add_argument(
            "--sync", action="store_true", help="flush the result to disk before the end"
        )
        sub.add_argument(
            "--workers", type=int, default=cores, metavar="N", help=f"threads (default {cores})"
        )
        sub.add_argument("--quiet", action="store_true", help="print errors only")

    sub = command("hf-to-mm", "Hugging Face directory -> Megatron release checkpoint")
    directory(sub, "--hf-dir", "the Hugging Face model")
    directory(sub, "--mm-dir", "the Megatron directory to write")
    layout(sub, 1)
    common(sub)

    sub = command("mm-to-hf", "Megatron checkpoint (release or trained) -> Hugging Face directory")
    directory(sub, "--mm-dir", "the Megatron directory (that of the tracker file)")
    directory(sub, "--hf-dir", "the original Hugging Face model: config, tokenizer, base weights")
    directory(sub, "--save-hf-dir", "the Hugging Face directory to write")
    sub.add_argument(
        "--iteration", metavar="N", help="a number or release (default: the tracker's)"
    )
    sub.add_argument(
        "--max-shard-bytes", type=int, default=4 * 10**9, metavar="N", help="default 4000000000"
    )
    sub.add_argument(
        "--lora-alpha", type=float, metavar="A", help="of LoRA adapters (default: from the file)"
    )
    directory(sub, "--lora-base-dir", "Megatron base weights of LoRA adapters", required=False)
    layout(sub, None)
    common(sub)

    sub = command("resplit", "Megatron checkpoint at any layout -> release at another")
    directory(sub, "--mm-dir --source-dir", "the Megatron directory to read")
    directory(sub, "--save-mm-dir --target-dir", "the Megatron directory to write")
    directory(sub, "--hf-dir", "the Hugging Face model, for its config.json", required=False)
    sub.add_argument(
        "--iteration", metavar="N", help="a number or release (default: the tracker's)"
    )
    layout(sub, 1)
    layout(sub, None, "source-")
    common(sub)

    sub = command("inspect", "print a table of ranks, tensors, shapes, dtypes and bytes")
    sub.add_argument("directory", type=Path, metavar="DIR", help="Megatron or Hugging Face")
    sub.add_argument(
        "--iteration", metavar="N", help="a number or release (default: the tracker's)"
    )

    sub = command("verify", "compare two checkpoints of either form, at any layouts")
    sub.add_argument("source", type=Path, metavar="DIR", help="Megatron or Hugging Face")
    sub.add_argument("result", type=Path, metavar="DIR", help="Megatron or Hugging Face")
    directory(sub, "--hf-dir", "whose config.json holds, if both are Megatron's", required=False)
    sub.add_argument("--workers", type=int, default=2, metavar="N", help="threads (default 2)")
    return top


class Meter:
    """Prints how far a conversion has come, on a terminal's standard error."""

    def __init__(self) -> None:
        self.shown = -1

    def __call__(self, done: int, total: int) -> None:
        percent = 100 * done // max(total, 1)
        if percent != self.shown:
            self.shown = percent
            print(f"\r{percent:3d} % of {total / 1e9:.2f} GB", end="", file=sys.stderr, flush=True)


def convert(options: argparse.Namespace) -> str:
    """Run a converting command; the line to print at its end."""
    meter = Meter() if sys.stderr.isatty() and not options.quiet else None
    keywords: dict[str, Any] = {
        "llm_pp_layers": options.llm_pp_layers,
        "vit_pp_layers": options.vit_pp_layers,
        "tp_size": options.tp,
        "workers": options.workers,
        "progress": meter,
        "verify": options.verify,
        "overwrite": options.overwrite,
        "sync": options.sync,
    }
    start = time.perf_counter()
    try:
        if options.command == "hf-to-mm":
            result = options.mm_dir
            layout = hf_to_mm(options.hf_dir, result, **keywords)
        elif options.command == "mm-to-hf":
            result = options.save_hf_dir
            layout = mm_to_hf(
                options.mm_dir,
                options.hf_dir,
                result,
                iteration=options.iteration,
                max_shard_bytes=options.max_shard_bytes,
                lora_alpha=options.lora_alpha,
                lora_base_dir=options.lora_base_dir,
                **keywords,
            )
        else:
            result = options.save_mm_dir
            layout = resplit(
                options.mm_dir,
                result,
                hf_dir=options.hf_dir,
                iteration=options.iteration,
                source_tp_size=options.source_tp,
                source_llm_pp_layers=options.source_llm_pp_layers,
                source_vit_pp_layers=options.source_vit_pp_layers,
                **keywords,
            )
    finally:
        if meter and meter.shown >= 0:
            print(file=sys.stderr)
    seconds = time.perf_counter() - start
    checked = ", read back and compared: equal" if options.verify else ""
    return f"{result} ({layout.describe()}) in {seconds:.1f} s{checked}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    options = parser().parse_args(arguments)
    quiet = getattr(options, "quiet", False)
    logging.basicConfig(
        level=logging.ERROR if quiet else logging.WARNING, format="%(levelname)s: %(message)s"
    )
    if getattr(options, "workers", 1) < 1:
        parser().error("--workers has to be 1 or more")
    try:
        if options.command == "inspect":
            print(inspect(options.directory, iteration=options.iteration))
        elif options.command == "verify":
            workers = options.workers
            print(verify(options.source, options.result, hf_dir=options.hf_dir, workers=workers))
        else:
            line = convert(options)
            if not quiet:
                print(line)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("interrupted; nothing was left behind", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
