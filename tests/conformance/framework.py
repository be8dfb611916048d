"""Running the real MindSpeed-MM on the CPU stand-in.

Set MINDSPEED_MM_HOME to a MindSpeed-MM tree (branch 2.0.0, laid out as its README says: `megatron` and
`MindSpeed` inside) and MINDSPEED_MM_PYTHON to a Python 3.10 that has its requirements, without
torch_npu. The tree is only read: the framework compiles into its own directories, hence a copy is run.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mindtune.engines.launching import free_port

STANDIN = Path(__file__).parents[1] / "standin"
EXAMPLES = "examples/qwen2vl"
# A hung process group must not hang the tests.
LIMIT_S = 900


def is_here() -> bool:
    return bool(os.environ.get("MINDSPEED_MM_HOME"))


@dataclass(frozen=True)
class Framework:
    """A copy of the framework's tree, and the Python that runs it."""

    home: Path
    python: str

    @classmethod
    def copied_to(cls, directory: Path) -> "Framework":
        """A copy in `directory`, made if it isn't there."""
        if not directory.is_dir():
            source = Path(os.environ["MINDSPEED_MM_HOME"])
            unneeded = shutil.ignore_patterns(".git", "docs", "tests")
            shutil.copytree(source, directory, ignore=unneeded)
        return cls(directory, os.environ["MINDSPEED_MM_PYTHON"])

    def environment(self, standin: bool) -> dict[str, str]:
        path = [self.home, self.home / "MindSpeed"]
        return {
            **os.environ,
            # Megatron's Makefile calls `python3`.
            "PATH": os.pathsep.join([str(Path(self.python).parent), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join(map(str, [STANDIN, *path] if standin else path)),
            "MINDTUNE_STANDIN": "1" if standin else "",
            "OMP_NUM_THREADS": "1",
            "CUDA_DEVICE_MAX_CONNECTIONS": "1",  # Megatron insists on it
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "TORCH_EXTENSIONS_DIR": str(self.home / "torch_extensions"),
        }

    def run(self, arguments: Sequence, cwd: Path, standin: bool = True) -> str:
        """Run the framework's Python; returns what it printed, both streams.

        Raises
        ------
        RuntimeError: it ended with another status than 0; with the end of what it printed.
        """
        done = subprocess.run(
            [self.python, *map(str, arguments)],
            cwd=cwd,
            env=self.environment(standin),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
        )
        if done.returncode:
            raise RuntimeError(f"exit status {done.returncode}: {done.stdout[-40000:]}")
        return done.stdout

    def torchrun(self, script: Path, arguments: Sequence, cwd: Path, processes: int = 1) -> str:
        """Run a script of the framework's under torchrun, on a port that is free."""
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", processes]
        rendezvous = ["--master_addr", "localhost", "--master_port", free_port()]
        rendezvous += ["--log_dir", cwd / ".torchrun"]
        return self.run([*launcher, *rendezvous, script, *arguments], cwd)

    def example(self, name: str) -> dict:
        """A JSON file that the framework ships for Qwen2-VL."""
        return json.loads((self.home / EXAMPLES / name).read_text(encoding="utf-8"))


def to_fp32(path: Path) -> None:
    """Change a model.json to float32.

    The text decoder keeps its flag `bf16`, without which the framework refuses mrope; what it computes in
    follows from `params_dtype`.
    """
    model = json.loads(path.read_text())
    for part in (*model["image_encoder"].values(), model["text_decoder"]):
        part["params_dtype"] = "fp32"
    for part in model["image_encoder"].values():
        part["bf16"] = False
    # Without flash attention Megatron would round the softmax by that flag; float32 it is anyway.
    model["text_decoder"]["attention_softmax_in_fp32"] = False
    path.write_text(json.dumps(model))
