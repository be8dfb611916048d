"""Comparing two checkpoints, of either form and at any layouts, element by element."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mindtune.checkpoint.huggingface import HFCheckpoint
from mindtune.checkpoint.megatron import TRACKER, MMCheckpoint
from mindtune.checkpoint.reading import compare, hf_views
from mindtune.errors import UserError
from mindtune.formats.streaming import Progress
from mindtune.formats.views import View
from mindtune.models.shape import ModelShape, model_shape, read_config


@dataclass(frozen=True, slots=True)
class Verified:
    """What was compared and found equal: numbers of tensors and of bytes."""

    tensors: int
    nbytes: int

    def __str__(self) -> str:
        return f"{self.tensors} tensors, {self.nbytes:,} bytes: equal, bit for bit"


def is_megatron(directory: str | Path) -> bool:
    """Whether a directory looks like a Megatron checkpoint (it has the tracker file)."""
    return (Path(directory) / TRACKER).is_file()


def verify(
    source_dir: str | Path,
    result_dir: str | Path,
    *,
    hf_dir: str | Path | None = None,
    source_iteration: int | str | None = None,
    result_iteration: int | str | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Verified:
    """Compare two checkpoints, each a Hugging Face or a Megatron directory at any layout.

    Both are brought to published names and compared in dtype, shape and every byte; a
    Megatron side's checksums are checked too. `hf_dir` says whose config.json holds when
    neither directory has one. Raises UserError naming the first difference found.
    """
    directories = (Path(source_dir), Path(result_dir))
    with_config = [d for d in directories if not is_megatron(d)] or [hf_dir]
    if with_config[0] is None:
        raise UserError(
            "to compare two Megatron checkpoints, give hf_dir: its config.json is needed"
        )
    config = read_config(with_config[0])
    shape = model_shape(config, f"{with_config[0]}/config.json")
    with ExitStack() as stack:
        sides = [
            _tensors(directory, shape, iteration, stack)
            for directory, iteration in zip(
                directories, (source_iteration, result_iteration), strict=True
            )
        ]
        if difference := sides[0][0].keys() ^ sides[1][0].keys():
            raise UserError(f"only one of the two has the tensor {min(difference)}")
        pairs = [(name, view, sides[1][0][name]) for name, view in sides[0][0].items()]
        result = compare(pairs, directories[1], workers=workers, progress=progress)
        for _, mm in sides:
            if mm:
                mm.check()
    return Verified(*result)


def _tensors(
    directory: Path, shape: ModelShape, iteration: int | str | None, stack: ExitStack
) -> tuple[Mapping[str, View], MMCheckpoint | None]:
    if is_megatron(directory):
        mm = stack.enter_context(MMCheckpoint(directory, iteration))
        return hf_views(mm, shape), mm
    return stack.enter_context(HFCheckpoint(directory)).tensors, None
