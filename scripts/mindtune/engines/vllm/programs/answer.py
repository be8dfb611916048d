"""Answers prompts with vLLM: one load, then chunk after chunk as they are handed over.

This program runs under vLLM's own Python, as `answer.py JOB`. JOB is a JSON file:

    model: a Hugging Face directory with processor. dtype, max_model_len, pictures (the most that a prompt
    shows), device (cpu, cuda or npu): how it is loaded. arguments: further ones, as of `vllm serve`.
    adapter: null, or what is kept beside the model: path (of a peft directory), rank, and modules, how many
    it changes. stops: the tokens that end an answer. max_new_tokens. feed: a named pipe. error: a path.

A line of the feed is the path of a chunk, or empty when all are done. A chunk is a JSON file:

    answers: where its answers go. limit: tokens of an answer; null for max_new_tokens. prompts: each
    with ids, token ids with one for each picture, and pictures, paths.

Its answers are a JSON file: seconds, and answers, for each prompt: asked, the token ids that the model
was given, and said, those that it answered, with the one that ended it.

With `look`, a path, nothing is loaded: the file gets JSON with device, bytes_free and bytes_total (null
where they aren't known), and unknown, those of the architectures of JOB that this vLLM doesn't know.

It prints `mindtune: answered N`, of so many more, and `mindtune: done PATH`. What goes wrong as the model is loaded is
written to `error` as JSON with kind (arguments, device, load, or adapter: it failed with one, or would not have
it) and text, and the exit status is 1.
"""

import json
import os
import sys
import time
import traceback
from pathlib import Path

SECONDS_BETWEEN_WORDS = 1.0


class Refused(Exception):
    """kind: what was refused, see above."""

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


def main(path):
    job = read(path)
    try:
        if "look" in job:
            write(job["look"], look(job))
            return 0
        model = load(job)
    except Refused as error:
        return refuse(job, error.kind, str(error))
    except Exception as error:
        traceback.print_exc()
        return refuse(
            job, "adapter" if job.get("adapter") else "load", f"{type(error).__name__}: {error}"
        )
    say(f"loaded {job['model']}")
    with open(job["feed"], encoding="utf-8") as feed:
        for line in feed:
            if not line.strip():
                return 0
            answer(model, job, line.strip())
    return 1  # whoever hands over is gone


def load(job):
    look_at_device(job["device"])
    from vllm import LLM

    values = vars(parsed(["--model", job["model"], *job["arguments"]]))
    values.update(
        model=job["model"], tokenizer=job["model"], dtype=job["dtype"],
        max_model_len=job["max_model_len"], seed=0, generation_config="vllm",
        limit_mm_per_prompt={"image": job["pictures"], "video": 0},
    )  # fmt: skip
    if job["device"] == "cpu":
        values["enforce_eager"] = True
    adapter = job["adapter"]
    if not adapter:
        return LLM(**values)
    rank = rank_for(adapter["rank"])
    values.update(enable_lora=True, max_lora_rank=rank, max_loras=1, max_cpu_loras=1)
    model = LLM(**values)
    apply_adapter(model, job)
    return model


def rank_for(rank):
    """The least of vLLM's ranks that an adapter's fits in."""
    from typing import get_args

    from vllm.config import lora
    from vllm.platforms import current_platform

    try:
        current_platform.get_punica_wrapper()
    except NotImplementedError as error:
        raise Refused("adapter", "this vLLM has no LoRA for the device") from error
    # The names of the type and of an older version's list.
    known = get_args(getattr(lora, "MaxLoRARanks", None)) or (8, 16, 32, 64, 128, 256)
    found = [one for one in sorted(known) if one >= rank]
    if not found:
        raise Refused("adapter", f"its rank is {rank}, and this vLLM has up to {max(known)}")
    return found[0]


def request_of(job):
    """What goes with each prompt, so that the adapter is applied; None without one."""
    if not job["adapter"]:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest("adapter", 1, job["adapter"]["path"])


def apply_adapter(model, job):
    """Have the adapter read, and whether all of it is applied: vLLM leaves out what it can't place."""
    from vllm import SamplingParams

    model.llm_engine.add_lora(request_of(job))
    expected = job["adapter"]["modules"]
    for placed, left_out in model.apply_model(placed_modules):
        if left_out:
            raise Refused("adapter", f"its {left_out[0]} changes nothing in this vLLM")
        if placed != expected:
            raise Refused(
                "adapter", f"{placed} of its {expected} modules change something in this vLLM"
            )
    prompts = [{"prompt_token_ids": job["stops"][:1]}]
    model.generate(
        prompts, SamplingParams(max_tokens=1), use_tqdm=False, lora_request=request_of(job)
    )


def placed_modules(model):
    """How many modules of the one adapter change the model's, and the names of those that don't."""
    manager = model.lora_manager
    (adapter,) = manager.list_adapters().values()
    placed, left_out = 0, []
    for name, weights in adapter.loras.items():
        if name not in manager.modules:
            left_out.append(name)
        # A packed module, such as qkv_proj, has a matrix for each of its parts, or None.
        parts = weights.lora_a if isinstance(weights.lora_a, (list, tuple)) else [weights.lora_a]
        placed += sum(part is not None for part in parts)
    return placed, left_out


def look(job):
    look_at_device(job["device"])
    parsed(["--model", job["model"], *job["arguments"]])
    from vllm import ModelRegistry

    known = set(ModelRegistry.get_supported_archs())
    free, total = None, None
    if job["device"] != "cpu":
        import torch

        free, total = getattr(torch, job["device"]).mem_get_info()
    return {
        "device": job["device"], "bytes_free": free, "bytes_total": total,
        "unknown": [name for name in job["architectures"] if name not in known],
    }  # fmt: skip


def look_at_device(wanted):
    """Whether vLLM and torch see a device of the kind."""
    from vllm.platforms import current_platform

    found = str(current_platform.device_type or "none")
    if found != wanted:
        raise Refused("device", f"this vLLM is made for, or finds, {found}")
    if wanted != "cpu":
        import torch

        count = getattr(torch, wanted).device_count()
        if not count:
            raise Refused("device", f"torch sees no {wanted} device")


def parsed(words):
    """The engine's arguments, by vLLM's own parser."""
    from vllm.engine.arg_utils import EngineArgs

    try:
        from vllm.utils.argparse_utils import FlexibleArgumentParser
    except ImportError:  # before 0.12
        from vllm.utils import FlexibleArgumentParser

    parser = EngineArgs.add_cli_args(FlexibleArgumentParser(add_help=False, allow_abbrev=False))

    def refuse_words(message):
        raise Refused("arguments", message)

    parser.error = refuse_words
    try:
        return EngineArgs.from_cli_args(parser.parse_args(words))
    except (ValueError, TypeError) as error:
        raise Refused("arguments", str(error)) from error


def answer(model, job, path):
    """Answer a chunk. Nothing of an earlier one is left, so that it is the same after a restart."""
    from PIL import Image
    from vllm import SamplingParams

    chunk = read(path)
    forget(model)
    begun = time.perf_counter()
    prompts, opened = [], {}
    for prompt in chunk["prompts"]:
        given = {"prompt_token_ids": prompt["ids"]}
        for name in prompt["pictures"]:
            if name not in opened:
                with Image.open(name) as picture:
                    picture.load()
                    opened[name] = picture
        if prompt["pictures"]:
            given["multi_modal_data"] = {"image": [opened[name] for name in prompt["pictures"]]}
        prompts.append(given)
    how = SamplingParams(
        temperature=0, max_tokens=chunk["limit"] or job["max_new_tokens"], detokenize=False,
        stop_token_ids=job["stops"], ignore_eos=True,
    )  # fmt: skip
    found = model.generate(prompts, how, use_tqdm=bar(), lora_request=request_of(job))
    lines = [
        {"asked": list(one.prompt_token_ids), "said": list(one.outputs[0].token_ids)}
        for one in found
    ]
    write(chunk["answers"], {"seconds": time.perf_counter() - begun, "answers": lines})
    say(f"done {path}")


def forget(model):
    model.reset_prefix_cache()
    for owner in (model, model.llm_engine):
        for name in ("reset_mm_cache", "reset_encoder_cache"):
            if hasattr(owner, name):
                getattr(owner, name)()


def bar():
    """A tqdm that says what is answered, in lines, and draws nothing."""
    from tqdm import tqdm

    class Said(tqdm):
        def __init__(self, *given, **named):
            named["file"] = open(os.devnull, "w")  # noqa: SIM115 - it lives as long as the bar
            self.unsaid, self.said = 0, time.monotonic()
            super().__init__(*given, **named)

        def update(self, count=1):
            self.unsaid += count
            if time.monotonic() - self.said >= SECONDS_BETWEEN_WORDS:
                say(f"answered {self.unsaid}")
                self.unsaid, self.said = 0, time.monotonic()
            return super().update(count)

    return Said


def say(words):
    """One write, so that no other process's words come between; bars leave no line end."""
    sys.stdout.flush()
    os.write(1, f"\nmindtune: {words}\n".encode())


def refuse(job, kind, text):
    write(job["error"], {"kind": kind, "text": text})
    return 1


def read(path):
    with open(path, encoding="utf-8") as handle:
        return json.load(handle)


def write(path, value):
    with open(path + ".partial", "w", encoding="utf-8") as handle:
        json.dump(value, handle)
    Path(path + ".partial").replace(path)


if __name__ == "__main__":
    status = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(
        status
    )  # all is on the disk; what vLLM does on its way out takes seconds, and can hang
