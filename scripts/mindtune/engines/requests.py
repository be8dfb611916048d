"""What an engine is asked to do: the jobs, in files and settings.

Settings are sections of the checked configuration (`docs/config.md` has their keys):
`train`, `processor`, `parallel`, `answer`, and `machine`, what the result depends on of the
section of the engine's own. `framework` is the record that `doctor` left of a framework and its
machine, None for an engine without one; `operation` is all of the engine's section, for what its
result does not depend on, such as a port.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class PrepareJob:
    """Turn a Hugging Face model into an mm checkpoint.

    hf_dir: a model's download. mm_dir: gets `latest_checkpointed_iteration.txt` and
    `release/mp_rank_*/model_optim_rng.pt`.
    """

    hf_dir: Path
    mm_dir: Path
    parallel: Settings
    framework: Path | None = None
    operation: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class FinetuneJob:
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
    train: Settings
    processor: Settings
    parallel: Settings
    machine: Settings
    framework: Path | None = None
    operation: Settings = field(default_factory=dict)
    keep: str = "all"
    followers: Any = None
    features: Path | None = None


@dataclass(frozen=True)
class ExportJob:
    """Turn the newest checkpoint of a save_dir into a Hugging Face model.

    hf_dir: the base model, whose config, tokenizer and index are taken over. out_dir: gets
    a directory that transformers loads, or with `adapter` one that peft loads.
    """

    save_dir: Path
    hf_dir: Path
    out_dir: Path
    parallel: Settings
    framework: Path | None = None
    operation: Settings = field(default_factory=dict)
    adapter: bool = False


@dataclass(frozen=True)
class AnswerJob:
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
    answer: Settings
    processor: Settings
    parallel: Settings
    machine: Settings
    framework: Path | None = None
    operation: Settings = field(default_factory=dict)
    code: str = ""


def answered(
    prompt: Mapping, *, answer: str, tokens: int, cut: bool, seconds: float
) -> dict[str, Any]:
    """A line of an answers file: what was asked, and what was said to it."""
    asked = {name: prompt[name] for name in ("id", "image", "images", "prompt") if name in prompt}
    said = {"answer": answer, "tokens": tokens, "cut": cut, "seconds": round(seconds, 4)}
    return asked | said
