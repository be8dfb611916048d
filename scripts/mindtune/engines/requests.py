"""What an engine is asked to do: the jobs, in files and settings.

Settings are sections of the checked configuration (`docs/config.md` has their keys):
`train`, `processor`, `parallel`, `answer`, and `machine`, what the result depends on of the
section of the engine's own. `framework` is the record that `doctor` left of a framework and its
machine, None for an engine without one; `operation` is all of the engine's section, for what its
result does not depend on, such as a port.

Jobs come as plain containers, as Snakemake's params or as JSON, and are read by attributes:
`FinetuneJob.of("hf", train={"lr": 1e-5}, ...).train.lr`. A key that was not given is no attribute,
but for one that came later, which has its default; see `mindtune.settings.typed`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from mindtune.engines import ENGINES

if TYPE_CHECKING:
    from mindtune.settings.sections import Answer, Parallel, Processor, Train

SECTIONS = ("train", "processor", "parallel", "answer")
OF_MACHINE = ("machine", "operation")
Machine = TypeVar("Machine")


def typed(name: str, plain: Mapping[str, Any]) -> Any:
    """A section of the configuration, as `train` or `hf`, of plain settings."""
    # Imported so that its code is in no hash: how a key is described changes no result.
    return import_module("mindtune.settings.typed").typed(name, plain)


class Job:
    """What all jobs have in common."""

    @classmethod
    def of(cls, engine: str, *places: Path, **given: Any) -> Self:
        """A job whose settings are given as plain containers; engine: whose section the machine's are.

        places: the first fields. Of `operation`, nothing but what came later is there by default.
        """
        machine = ENGINES[engine].machine
        given.setdefault("operation", {})
        sections = {
            name: typed(machine if name in OF_MACHINE else name, value)
            for name, value in given.items()
            if name in (*SECTIONS, *OF_MACHINE) and value is not None
        }
        return cls(*places, **given | sections)

    def plain(self) -> dict[str, Any]:
        """All that it was made with, settings as the plain containers that they were."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {
            name: value.model_dump() if hasattr(value, "model_dump") else value
            for name, value in found.items()
        }


@dataclass(frozen=True)
class PrepareJob(Job, Generic[Machine]):
    """Turn a Hugging Face model into an mm checkpoint.

    hf_dir: a model's download. mm_dir: gets `latest_checkpointed_iteration.txt` and
    `release/mp_rank_*/model_optim_rng.pt`.
    """

    hf_dir: Path
    mm_dir: Path
    parallel: "Parallel"
    operation: Machine
    framework: Path | None = None


@dataclass(frozen=True)
class FinetuneJob(Job, Generic[Machine]):
    """Fine-tune an mm checkpoint on mllm-format data.

    save_dir: gets `iter_0000050/mp_rank_*/model_optim_rng.pt` and so on, the tracker
    `latest_checkpointed_iteration.txt`, and `loss.csv` with a line per iteration. A
    training that was interrupted resumes from its newest whole checkpoint; the caller
    ensures that save_dir holds nothing of other settings (`mindtune.engines.training_directory`).
    keep: `all` checkpoints, or the `last` (`mindtune.engines.pruning`). followers: whoever shows the
    training while it runs (`mindtune.trackers`). features: where an engine may keep what a frozen
    vision tower makes of pictures, None for nowhere; it is for trainings of the same code.
    """

    train_data: Path
    held_out_data: Path
    images: Path
    hf_dir: Path
    mm_dir: Path
    save_dir: Path
    train: "Train"
    processor: "Processor"
    parallel: "Parallel"
    machine: Machine
    operation: Machine
    framework: Path | None = None
    keep: str = "all"
    followers: Any = None
    features: Path | None = None


@dataclass(frozen=True)
class ExportJob(Job, Generic[Machine]):
    """Turn the newest checkpoint of a save_dir into a Hugging Face model.

    hf_dir: the base model, whose config, tokenizer and index are taken over. out_dir: gets
    a directory that transformers loads, or with `adapter` one that peft loads.
    """

    save_dir: Path
    hf_dir: Path
    out_dir: Path
    parallel: "Parallel"
    operation: Machine
    framework: Path | None = None
    adapter: bool = False


@dataclass(frozen=True)
class AnswerJob(Job, Generic[Machine]):
    """Answer all prompts, greedily, with one load of the model.

    prompts: JSON lines with `id`, `prompt`, and `image` or `images` (relative to `images`), see
    `mindtune.data.prompts`. model_dir: as the engine's `answers_from` says. hf_dir: a Hugging Face
    directory, for tokenizer, processor and config.
    answers: gets the lines of `answered`, in the order of the prompts. code: a hash of the code that
    answers; an interrupted answering is taken up by the same code only (`mindtune.engines.journal`).
    """

    prompts: Path
    images: Path
    model_dir: Path
    hf_dir: Path
    answers: Path
    answer: "Answer"
    processor: "Processor"
    parallel: "Parallel"
    machine: Machine
    operation: Machine
    framework: Path | None = None
    code: str = ""


def answered(
    prompt: Mapping, *, answer: str, tokens: int, cut: bool, seconds: float
) -> dict[str, Any]:
    """A line of an answers file: what was asked, and what was said to it."""
    asked = {name: prompt[name] for name in ("id", "image", "images", "prompt") if name in prompt}
    said = {"answer": answer, "tokens": tokens, "cut": cut, "seconds": round(seconds, 4)}
    return asked | said
