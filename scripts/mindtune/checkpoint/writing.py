"""Writing a Megatron checkpoint directory from views."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mindtune.checkpoint.layout import ParallelLayout
from mindtune.checkpoint.megatron import RANK_FILE, TRACKER
from mindtune.errors import UserError
from mindtune.files import sync_directory, writing_directory
from mindtune.formats.streaming import Progress, creating, write_all
from mindtune.formats.torch_zip import Archive
from mindtune.formats.views import View
from mindtune.models.tensors import Entry, Tensors, shard

log = logging.getLogger("mindtune.checkpoint")


def rank_trees(
    layout: ParallelLayout, family: Tensors, *, tied: bool, whole: Callable[[Entry], View]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(rank directory's name, object for its file) of each rank; leaves are views.

    `whole(entry)` gives a Megatron tensor of the whole model. A tied model has no output
    layer of its own; with more than one stage the last gets a copy of the embedding, as
    from mm-convert.
    """
    chunks = layout.chunks
    cache: dict[str, View] = {}

    def tensor(entry: Entry) -> View:
        if tied and entry.mm == family.output_mm:
            entry = family.embedding
        if entry.mm not in cache:
            cache[entry.mm] = whole(entry)
        return cache[entry.mm]

    output = not tied or layout.pp_size > 1
    for t in range(layout.tp_size):
        for p in range(layout.pp_size):
            models = [
                {
                    name: shard(entry.rule.split, tensor(entry), layout.tp_size, t)
                    for name, entry in family.entries_of_chunk(
                        chunks, v * layout.pp_size + p, output=output
                    )
                }
                for v in range(layout.vpp_size)
            ]
            tree: dict[str, Any] = {"model": models[0]}
            if len(models) > 1:
                tree = {f"model{v}": model for v, model in enumerate(models)}
                tree["checkpoint_version"] = 3.0
            yield layout.rank_directory(t, p), tree


def write_ranks(
    directory: Path,
    trees: Mapping[str, Any],
    *,
    workers: int = 1,
    progress: Progress | None = None,
    sync: bool = False,
) -> None:
    """Write `directory/<rank>/model_optim_rng.pt` for each (rank name, object) of `trees`.

    With `sync` the data are flushed to disk before this returns.
    """
    archives = {name: Archive(tree) for name, tree in trees.items()}
    check_space(directory, sum(archive.size for archive in archives.values()))
    with ExitStack() as stack:
        files, targets = [], []
        for name, archive in archives.items():
            make_directory(directory / name)
            fd = stack.enter_context(creating(directory / name / RANK_FILE, archive.size))
            files.append((archive, fd))
            targets += archive.targets(fd)
        write_all(targets, workers=workers, progress=progress)
        for archive, fd in files:
            archive.finish(fd)
            if sync:
                os.fsync(fd)


def write_release(
    mm_dir: Path,
    layout: ParallelLayout,
    family: Tensors,
    *,
    tied: bool,
    whole: Callable[[Entry], View],
    before_rename: Callable[[Path], None],
    overwrite: bool = False,
    **options: Any,
) -> None:
    """Write a `release` checkpoint with its tracker; the directory appears whole, by rename.

    `before_rename(directory)` is called on the finished directory under its temporary name
    and may raise to call the whole thing off. `options` are those of `write_ranks`.
    """
    for problem in layout.training_problems():
        log.warning("this layout converts, but cannot be trained: %s", problem)
    check_target(mm_dir, overwrite, {TRACKER, "release"})
    trees = dict(rank_trees(layout, family, tied=tied, whole=whole))
    with target_directory(mm_dir) as temporary:
        make_directory(temporary / "release")
        write_ranks(temporary / "release", trees, **options)
        (temporary / TRACKER).write_text("release", encoding="ascii")
        before_rename(temporary)


@contextmanager
def target_directory(path: Path) -> Iterator[Path]:
    """`writing_directory`, with a mode its owner can enter and errors told in a sentence."""
    try:
        with writing_directory(path) as temporary:
            _open_to_owner(temporary)
            yield temporary
    except OSError as error:
        where = error.filename or path.parent
        raise UserError(f"{path} cannot be written: {where}: {error.strerror}") from error


def make_directory(path: Path) -> None:
    """Make a directory (and its parents) that its owner can enter, whatever the umask."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(exist_ok=True)
        _open_to_owner(path)


def _open_to_owner(path: Path) -> None:
    mode = path.stat().st_mode & 0o7777
    if mode & 0o700 != 0o700:
        path.chmod(mode | 0o700)


def check_target(path: Path, overwrite: bool, own: set[str], marker: bool = False) -> None:
    """Refuse to replace a directory that is not a converter's product (names in `own` only).

    `marker` says that the directory is known to be one. An empty directory may be replaced.
    """
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UserError(f"{path} exists and is not a directory; remove it or choose another name")
    if overwrite or marker or not path.exists():
        return
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in own)
    if others:
        raise UserError(
            f"{path} exists and holds {others[0]}, which a conversion did not write; "
            "remove it, choose another directory, or say overwrite"
        )


def check_apart(target: Path, *sources: Path) -> None:
    """Refuse a target that is a source, lies in one, or contains one."""
    here = target.resolve()
    for source in sources:
        there = source.resolve()
        if here == there or here in there.parents or there in here.parents:
            raise UserError(f"{target} and {source} must be separate directories")


def check_space(directory: Path, size: int) -> None:
    """Refuse to start writing `size` bytes where the disk has fewer left."""
    free = shutil.disk_usage(directory).free
    if size > free:
        raise UserError(f"the result needs {size:,} bytes, the disk has {free:,} left")


def sync_tree(directory: Path) -> None:
    """Flush the names in a directory and those below it to disk."""
    for parent, _, _ in os.walk(directory):
        sync_directory(Path(parent))
