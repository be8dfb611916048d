"""An adapter that vLLM keeps beside its base, and when it has to be merged first.

vLLM drops without a word what it can't place: adapters of the vision model (its LoRA for them is an
experiment, off by default), and modules that it has under no name. Asked are therefore, before the load, the
adapter (here) and vLLM (programs/answer.py: whether it has LoRA for the device, and its ranks), and after the
load the model in its memory: whether each module of the adapter changes one of its own, and whether it
answers. Where one of them says no, the adapter is merged first, and the log says why.
"""

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtune.checkpoint.peft_adapter import is_adapter, merge_adapter, open_pairs
from mindtune.engines.requests import AnswerJob
from mindtune.models.shape import model_shape, read_config
from mindtune.models.tensors import tensors_of

if TYPE_CHECKING:
    from mindtune.settings.sections.vllm import Vllm

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Beside:
    """An adapter that is to be kept. rank: its greatest. modules: how many it changes."""

    path: Path
    rank: int
    modules: int

    def plain(self) -> dict[str, Any]:
        return {"path": str(self.path), "rank": self.rank, "modules": self.modules}


def adapter_of(job: "AnswerJob[Vllm]") -> Beside | None:
    """The adapter of a job whose model is one, to be kept beside `hf_dir`; None where it has to be merged first,
    or the model is a whole one.

    Raises
    ------
    UserError: the adapter is none that could be merged, or not one of this base.
    """
    if not is_adapter(job.model_dir):
        return None
    shape = model_shape(read_config(job.hf_dir), str(job.hf_dir / "config.json"))
    family = tensors_of(shape)
    with ExitStack() as stack:
        pairs = open_pairs(job.model_dir, shape, str(job.hf_dir), stack)
        rank = max(pair.a.shape[0] for pair in pairs.values())
    other = next((name for name in sorted(pairs) if family.kind(name) != "language"), None)
    if other is not None:
        part = {"vision": "vision model"}.get(family.kind(other), family.kind(other))
        log_merge(f"it changes the {part} too ({other.removesuffix('.weight')})")
        return None
    return Beside(job.model_dir.resolve(), rank, len(pairs))


def log_merge(why: str) -> None:
    """Say why an adapter is not kept."""
    log.info("vLLM can't keep the adapter beside its base, so it is merged first: %s", why)


def merged_model(job: "AnswerJob[Vllm]", place: Path) -> Path:
    """The base with the job's adapter merged, in a new directory."""
    merge_adapter(job.model_dir, job.hf_dir, place, widen=True)
    return place
