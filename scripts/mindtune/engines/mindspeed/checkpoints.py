"""The checkpoints that a training left in a save_dir: which are whole, and whose turn it is."""

import shutil
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from mindtune.checkpoint.layout import ParallelLayout
from mindtune.checkpoint.megatron import (
    RANK_FILE,
    TRACKER,
    iteration_name,
    iterations,
    track,
)
from mindtune.files import regular

OPTIMIZER = "distrib_optim.pt"
RELEASE = "release"


def rank_files(layout: ParallelLayout, with_optimizer: bool) -> Iterator[Path]:
    """The files of a whole checkpoint, below its own directory."""
    for tensor_rank in range(layout.tp_size):
        for stage in range(layout.pp_size):
            rank = Path(layout.rank_directory(tensor_rank, stage))
            yield rank / RANK_FILE
            if with_optimizer:
                yield rank / OPTIMIZER


def missing_files(
    save_dir: Path, iteration: int, layout: ParallelLayout, with_optimizer: bool
) -> list[Path]:
    """Which files of a checkpoint are not there, or end before their end.

    torch.save writes a zip file, whose directory is its last part: a file that was cut short has
    none.
    """
    return _missing(save_dir / iteration_name(iteration), layout, with_optimizer)


def missing_weights(directory: Path, layout: ParallelLayout) -> list[Path]:
    """Which files of the weights that a directory's tracker names are missing or cut short."""
    named = tracked(directory)
    if named != RELEASE and not (named or "").isdigit():
        return [directory / TRACKER]
    below = directory / named if named == RELEASE else directory / iteration_name(int(named))
    return _missing(below, layout, with_optimizer=False)


def _missing(directory: Path, layout: ParallelLayout, with_optimizer: bool) -> list[Path]:
    return [
        directory / name
        for name in rank_files(layout, with_optimizer)
        if not (directory / name).is_file() or not zipfile.is_zipfile(directory / name)
    ]


def newest_whole(save_dir: Path, layout: ParallelLayout, with_optimizer: bool, at_most: int) -> int:
    """The newest iteration whose checkpoint is whole, 0 for none."""
    return max(
        (
            iteration
            for iteration in iterations(save_dir)
            if iteration <= at_most
            and not missing_files(save_dir, iteration, layout, with_optimizer)
        ),
        default=0,
    )


def remove_after(save_dir: Path, iteration: int) -> None:
    """Remove all checkpoints of later iterations, and let the tracker name `iteration`."""
    for later in iterations(save_dir):
        if later > iteration:
            shutil.rmtree(save_dir / iteration_name(later))
    if iteration:
        track(save_dir, iteration)
    else:
        (save_dir / TRACKER).unlink(missing_ok=True)


def tracked(directory: Path) -> str | None:
    """What a tracker says, such as `release` or an iteration; None without one.

    Raises
    ------
    UserError: it is something else than a file.
    """
    path = directory / TRACKER
    return regular(path).read_bytes().decode("ascii", "replace").strip() if path.exists() else None


def open_to_owner(directory: Path) -> None:
    """Let the owner read, write and enter all below, which the framework takes away in places.

    mm-convert leaves its directory at mode 0640; for anyone but root a checkpoint
    in it is then not there, and training begins with random weights.
    """
    for path in (directory, *directory.rglob("*")):
        if path.is_symlink():
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        wanted = mode | stat.S_IRUSR | stat.S_IWUSR | (stat.S_IXUSR if path.is_dir() else 0)
        if mode != wanted:
            path.chmod(wanted)
