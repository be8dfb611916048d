#!/usr/bin/env python3
"""Stands for the framework's Python: records how it was started, and leaves what MindSpeed-MM leaves.

FAKE_FRAMEWORK names a directory. A line for each start is appended to `starts.jsonl` in it
(arguments, some environment variables, working directory), and `play.json` there, if any, says what goes wrong:
`die_at` an iteration, `status` to end with, `no_load`, `silent`, `nan_at`, `cut` the last file, `say` a line,
`wait` seconds after it, `answer` what is said to each prompt (`{text}`: what it was asked).
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

HERE = Path(os.environ["FAKE_FRAMEWORK"])
KEPT = ("MINDTUNE", "ASCEND", "HCCL", "CUDA", "NPU", "TASK", "COMBINED", "CPU_AFF", "ACLNN", "HF_",
        "TRANSFORMERS", "TOKENIZERS", "PYTORCH_NPU", "OMP", "PYTHONPATH", "VIRTUAL_ENV", "GREETING",
        "MADE_BY")  # fmt: skip


def main(arguments):
    play = json.loads((HERE / "play.json").read_text()) if (HERE / "play.json").is_file() else {}
    environment = {k: v for k, v in sorted(os.environ.items()) if k.startswith(KEPT)}
    with open(HERE / "starts.jsonl", "a") as handle:
        start = {"arguments": arguments, "environment": environment, "cwd": str(Path.cwd())}
        handle.write(json.dumps(start) + "\n")
    for line in play.get("say", []):
        print(line, flush=True)
    time.sleep(play.get("wait", 0))
    if "checkpoint.convert_cli" in arguments:
        return play.get("status", 0)
    program = next((Path(word).name for word in arguments if word.endswith(".py")), "")
    status = {"pretrain_vlm.py": train, "answer.py": answer, "inference_vlm.py": infer}[program](
        Options(arguments), play
    )
    status = play.get("status", status)
    if status < 0:
        os.kill(os.getpid(), -status)
    return status


class Options(dict):
    """`--name value` of a command line; a flag alone is True."""

    def __init__(self, words):
        for word, following in zip(words, [*words[1:], "--"], strict=True):
            if word.startswith("--"):
                self[word] = True if following.startswith("--") else following


def load(options, play):
    directory = Path(options["--load"])
    if play.get("no_load"):
        print(f"WARNING: could not find the metadata file {directory}/latest")
        print("    will not load any checkpoints and will start from random", flush=True)
        return None
    named = (directory / "latest_checkpointed_iteration.txt").read_text().strip()
    begun = 0 if named == "release" else int(named)
    source = directory / (named if not begun else f"iter_{begun:07d}")
    if play.get("silent"):
        return begun, source
    print(f"  successfully loaded checkpoint from {directory} [ t 0, p 0 ] at iteration {begun}")
    return begun, source


def train(options, play):
    loaded = load(options, play)
    begun, source = loaded or (0, None)
    total, every = int(options["--train-iters"]), int(options["--save-interval"])
    batch, peak = int(options["--global-batch-size"]), float(options["--lr"])
    save = Path(options["--save"])
    for iteration in range(begun + 1, total + 1):
        loss = f" loss: {10 / iteration:.6E} |" if iteration != play.get("nan_at") else ""
        print(
            f" [2026-01-01 00:00:00] iteration {iteration:8d}/{total:8d} | consumed samples: "
            f"{iteration * batch:12d} | elapsed time per iteration (ms): 100.0 | learning rate: "
            f"{peak * (1 - iteration / total):.6E} | global batch size: {batch:5d} |{loss} "
            "loss scale: 1.0 | number of skipped iterations:   0 | number of nan iterations: "
            f"{int(iteration == play.get('nan_at')):3d} |",
            flush=True,
        )
        if iteration % every == 0 or iteration == total:
            target = save / f"iter_{iteration:07d}"
            shutil.copytree(source or options["--load"] + "/release", target, dirs_exist_ok=True)
            for rank in target.iterdir():
                if "--no-save-optim" not in options:
                    shutil.copy(rank / "model_optim_rng.pt", rank / "distrib_optim.pt")
            if iteration == total and play.get("cut"):
                file = next(target.rglob("model_optim_rng.pt"))
                file.write_bytes(file.read_bytes()[:1000])
            (save / "latest_checkpointed_iteration.txt").write_text(str(iteration))
            print(f"  successfully saved checkpoint from iteration {iteration:7d} to {save}")
        if iteration == play.get("die_at"):
            print("torch.distributed.elastic.multiprocessing.errors.ChildFailedError:", flush=True)
            return 1
    print("[after training is done] datetime: 2026-01-01 00:00:00 ", flush=True)
    return 0


def answer(options, play):
    load(options, play)
    job = json.loads(Path(options["--mindtune-job"]).read_text())
    with open(job["prompts"], encoding="utf-8") as handle:
        prompts = [json.loads(line) for line in handle]
    with open(job["answers"], "w") as handle:
        for number, prompt in enumerate(prompts, start=1):
            if number == play.get("die_at"):
                return 1
            said = play.get("answer", "an answer to {text}").format(**prompt)
            line = {"id": prompt["id"], "answer": said, "tokens": 4}
            handle.write(json.dumps(line | {"cut": False, "seconds": 0.5}) + "\n")
            print(f"mindtune: answered {number}/{len(prompts)}", flush=True)
    return 0


def infer(options, play):
    load(options, play)
    settings = json.loads(Path(options["--mm-model"]).read_text())
    print("warning: Both `max_new_tokens` (= 256) and `max_length` (= 20) seem to have been set.")
    if not play.get("mute"):
        print(
            f"It is {Path(settings['image_path']).name}.\nAsked: {settings['prompts']}", flush=True
        )
    print("a warning of somebody's", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
