"""What vLLM says when it can't go on, and what to do about it."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mindtune.settings.sections.vllm import Vllm

SHOWN = 300
# A line that says so, and no line of source in a traceback.
ERROR = re.compile(r"\b[A-Z]\w*(Error|Exception): |terminate called after throwing")
# What a line or an exception of vLLM's must hold -> a name of the fault.
FAULTS = (
    (r"out of memory|OutOfMemoryError|Free memory on device|std::bad_alloc|Cannot allocate memory"
     r"|DefaultCPUAllocator: can't allocate|NPU out of memory", "memory"),
    (r"No available memory for the cache blocks|larger than the available KV cache memory"
     r"|maximum number of tokens that can be stored in KV cache|larger than the maximum number of tokens"
     r"|is needed, which is larger than", "cache"),
    (r"[Mm]odel architectures? .*(not supported|failed to be inspected)|is not supported for now"
     r"|does not recognize this architecture", "architecture"),
    (r"[Nn]umber of attention heads .* divisible by|not divisible by", "heads"),
)  # fmt: skip


@dataclass
class Faults:
    """Listens to vLLM's lines; section: `vllm`."""

    section: "Vllm"
    fault: str | None = None
    words: str = ""
    last: str = ""

    def hear(self, line: str) -> None:
        if not ERROR.search(line):
            return
        for pattern, fault in FAULTS:
            if self.fault is None and re.search(pattern, line):
                self.fault, self.words = fault, shortened(line)
        if "Engine core init" not in line:
            self.last = shortened(line)

    def knows(self, text: str) -> bool:
        """Whether there is a known fault in what was heard, or in an exception's text."""
        for line in text.splitlines():
            self.hear(line)
        return self.fault is not None

    def refused(self, kind: str, text: str) -> str:
        """The sentence for what the program refused. kind, text: see programs/answer.py."""
        device = self.section.device
        if kind == "arguments":
            return (
                f"vllm.arguments can't be used: {shortened(text)}; `vllm serve --help` lists them."
            )
        if kind == "device":
            return (
                f"vllm.device is {device}, but {shortened(text)}; write the device that vLLM in "
                "vllm.python is made for, or give it one (CUDA_VISIBLE_DEVICES or "
                "ASCEND_RT_VISIBLE_DEVICES may hide it)."
            )
        for line in text.splitlines():
            self.hear(line)
        return self.sentence() or (
            f"vLLM can't load the model: {self.last or shortened(text)}; its own words are at the end "
            "of the log."
        )

    def sentence(self) -> str | None:
        """What was heard, as a sentence; None where nothing known was."""
        remedy = {
            "memory": "free the device of other programs, or write less for "
            "`--gpu-memory-utilization`, more for `--tensor-parallel-size`, or `--max-num-seqs 8` in "
            "vllm.arguments",
            "cache": "give the cache more by `--gpu-memory-utilization` in vllm.arguments (on a CPU: "
            "VLLM_CPU_KVCACHE_SPACE in vllm.environment), or ask for shorter answers "
            "(answer.max_new_tokens)",
            "architecture": "this vLLM doesn't know the model: install a newer one in vllm.python, or "
            "write `answer.engine: hf`",
            "heads": "write a `--tensor-parallel-size` in vllm.arguments that divides the model's "
            "attention heads",
        }
        if self.fault is None:
            return None
        what = {"memory": "ran out of memory", "cache": "has too little memory for its cache"}
        said = what.get(self.fault, "can't run this model")
        return f"vLLM {said} ({self.words}); {remedy[self.fault]}."


def shortened(text: str) -> str:
    """A line without vLLM's own prefix, at a length for a sentence."""
    line = " ".join(text.split())
    line = re.sub(r"^(\([^)]*\) )?(ERROR|WARNING|INFO) [\d-]+ [\d:]+ \[[^\]]*\] ", "", line)
    return (line if len(line) <= SHOWN else f"{line[:SHOWN]}…").rstrip(".; ")
