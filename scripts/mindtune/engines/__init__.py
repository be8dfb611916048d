"""Engines: what trains and answers, behind one set of files.

An engine is a package here that trains, answers, or both: a module for each of its roles, with one
function of the same name:

| role       | function                      | from                | to                        |
|------------|-------------------------------|---------------------|---------------------------|
| `finetune` | `finetune(FinetuneJob)`       | mm checkpoint, data | `save_dir`, loss.csv      |
| `answer`   | `answer(AnswerJob)`           | model, prompts      | answers, JSON lines       |

Who trains is `engine`, who answers `answer.engine`; converting between the two layouts belongs to
no engine, see `mindtune.engines.converting`.

`finetune` has a second function, `check(FinetuneJob, begun)`: it raises for what would keep a
training that resumes from iteration `begun` from beginning, and writes nothing.

The jobs are in `mindtune.engines.requests`. The files are the same for all engines, so that what
one wrote another can read. A module is imported only when its role is played: answering needs no
code of training, and an edit of the one re-runs nothing of the other.
"""

import gc
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True)
class Engine:
    """What the workflow has to know of an engine before anything runs.

    answers_from: `hf` when it answers from a Hugging Face directory, `mm` when from an mm
        checkpoint or a save_dir. machine: the section of the configuration that describes its
        machine. keys: its roles, and for each the keys of that section on which the result depends; an
        edit of any other key of it runs nothing again. framework: whether it wants a framework
        of its own, which is installed and looked at before anything heavy. adapters: whether it answers
        from an adapter beside its base, so that none has to be merged first.
    """

    name: str
    answers_from: str
    machine: str
    keys: Mapping[str, tuple[str, ...]]
    framework: bool = False
    adapters: bool = False


DEVICE = ("device", "precision", "threads")
PACKING = ("tokens_per_pass", "recompute", "feature_cache")
LAUNCH = ("npus_per_node", "nodes", "environment", "extra_arguments")
ENGINES = {
    "hf": Engine(
        "hf",
        answers_from="hf",
        machine="hf",
        keys={
            "finetune": (
                *DEVICE,
                *PACKING,
                "kernels",
                "optimizer",
                "frozen_weights",
                "devices",
                "nodes",
                "shard",
            ),
            "answer": DEVICE,
        },
    ),
    "vllm": Engine(
        "vllm",
        answers_from="hf",
        machine="vllm",
        keys={"answer": ("device", "precision", "threads", "environment", "arguments")},
        adapters=True,
    ),
    "mindspeed": Engine(
        "mindspeed",
        answers_from="mm",
        machine="mindspeed",
        keys={
            "finetune": LAUNCH,
            "answer": ("inference", "environment"),
        },
        framework=True,
    ),
}
ROLES = ("finetune", "answer")


def playing(role: str) -> tuple[str, ...]:
    """The names of the engines that have a role."""
    return tuple(name for name, engine in ENGINES.items() if role in engine.keys)


def stage(engine: str, name: str) -> Callable:
    """The function of an engine for one of its roles."""
    return getattr(_imported(f"{__name__}.{engine}.{name}"), name)


def training_check(engine: str) -> Callable:
    """The function of an engine that looks at a training before anything is moved for it."""
    return _imported(f"{__name__}.{engine}.finetune").check


def _imported(name: str) -> ModuleType:
    """A module, imported without looking for garbage meanwhile or later in what it brings: that takes a
    tenth of torch's and transformers' import, and half a second of a short training."""
    if name in sys.modules:
        return import_module(name)
    collecting = gc.isenabled()
    gc.disable()
    try:
        module = import_module(name)
        gc.freeze()
        return module
    finally:
        if collecting:
            gc.enable()


def stage_sources(engine: str, name: str) -> list[Path]:
    """The file in which that function is, and its program, which runs in processes of its own."""
    package = Path(__file__).parent / engine
    program = package / "programs" / f"{name}.py"
    return [package / f"{name}.py", *([program] if program.is_file() else [])]
