"""Engines: what trains and answers, behind one set of files.

An engine is a package here with four modules, each with one function of the same name:

| module     | function                      | from                | to                        |
|------------|-------------------------------|---------------------|---------------------------|
| `prepare`  | `prepare(PrepareJob)`         | Hugging Face model  | mm checkpoint (`release`) |
| `finetune` | `finetune(FinetuneJob)`       | mm checkpoint, data | `save_dir`, loss.csv      |
| `export`   | `export(ExportJob)`           | `save_dir`          | Hugging Face model        |
| `answer`   | `answer(AnswerJob)`           | model, prompts      | answers, JSON lines       |

The jobs are in `mindtune.engines.jobs`. The files are the same for all engines, so that what
one wrote another can read. A module is imported only when its stage runs: answering needs no
code of training, and an edit of the one re-runs nothing of the other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path


@dataclass(frozen=True)
class Engine:
    """What the workflow has to know of an engine before anything runs.

    answers_from: `hf` when it answers from a Hugging Face directory, `mm` when from an mm
        checkpoint. machine: the section of the configuration that describes its machine.
    """

    name: str
    answers_from: str
    machine: str


ENGINES = {
    "hf": Engine("hf", answers_from="hf", machine="hf"),
}
STAGES = ("prepare", "finetune", "export", "answer")


def stage(engine: str, name: str) -> Callable:
    """The function of an engine for a stage."""
    return getattr(import_module(f"{__name__}.{engine}.{name}"), name)


def stage_source(engine: str, name: str) -> Path:
    """The file in which that function is."""
    return Path(__file__).parent / engine / f"{name}.py"
