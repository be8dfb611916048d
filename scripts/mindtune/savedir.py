"""A training's save_dir: one training at a time, and of one set of settings."""

import hashlib
import json
import logging
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mindtune.checkpoint.megatron import TRACKER, iteration_name, iterations, track
from mindtune.continuation import Continuation, continuation
from mindtune.engines.log_table import LOSS, LossTable
from mindtune.errors import UserError
from mindtune.files import sha256_file, write_json

log = logging.getLogger(__name__)

SETTINGS = "settings.json"


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A short hash of everything that a training's result depends on."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content_of(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of some files, by the name they are given."""
    return {name: sha256_file(path) for name, path in files.items()}


def content_of_checkpoint(mm_dir: Path) -> str:
    """A hash of an mm checkpoint's content, from the checksums that its zip files carry.

    It reads the directories of the archives only, so that it costs nothing at any size.
    """
    digest = hashlib.sha256()
    for path in sorted(mm_dir.rglob("*.pt")):
        digest.update(f"{path.relative_to(mm_dir)}\0".encode())
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                digest.update(f"{entry.filename} {entry.file_size} {entry.CRC}\0".encode())
    return digest.hexdigest()


@contextmanager
def claimed(save_dir: Path, settings: Mapping[str, Any]) -> Iterator[str]:
    """Hold a save_dir for one training of these settings; yields their fingerprint.

    Checkpoints of the same settings are kept, and the training can go on from them; so are
    those of other settings, up to the iteration to which both are the same (see
    `mindtune.continuation`). All others are put aside in `save_dir.superseded` (one generation
    of them), never continued.

    Raises
    ------
    UserError: another training holds it.
    """
    save_dir.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(save_dir.with_name(f".{save_dir.name}.lock"))
    try:
        with lock.acquire(timeout=0):
            mark = fingerprint(settings)
            if save_dir.exists():
                _keep_what_is_the_same(save_dir, settings, mark)
            save_dir.mkdir(exist_ok=True)
            write_json(save_dir / SETTINGS, {"fingerprint": mark, **settings})
            yield mark
    except Timeout as error:
        raise UserError(
            f"another training is writing to {save_dir}; wait until it ends, or stop it, and run "
            "the same command again."
        ) from error


def _keep_what_is_the_same(save_dir: Path, settings: Mapping[str, Any], mark: str) -> None:
    found = _settings_of(save_dir)
    if found.pop("fingerprint", None) == mark:
        return
    common = continuation(found, settings) if found else Continuation(0, "unknown", "")
    usable = min(common.iteration, _tracked(save_dir))
    kept = max((n for n in _saved(save_dir) if n <= usable), default=0)
    if kept:
        _cut_back(save_dir, kept, common.iteration)
        log.info(
            "%s holds checkpoints of other settings (%s), the same up to iteration %d: going on from "
            "iteration %d%s",
            save_dir, common.changed, common.iteration, kept, _because(common),
        )  # fmt: skip
        return
    aside = _aside(save_dir)
    if aside.exists():
        shutil.rmtree(aside)
    save_dir.rename(aside)
    log.info(
        "%s holds checkpoints of other settings: put aside as %s (%s)%s",
        save_dir, aside, common.changed, _because(common),
    )  # fmt: skip


def _because(common: Continuation) -> str:
    return f"; {common.reason}" if common.reason else ""


def _aside(save_dir: Path) -> Path:
    return save_dir.with_name(f"{save_dir.name}.superseded")


def _settings_of(save_dir: Path) -> dict[str, Any]:
    try:
        return json.loads((save_dir / SETTINGS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def _tracked(save_dir: Path) -> int:
    """What the tracker names, 0 for nothing: Megatron writes it when a checkpoint is whole."""
    try:
        return int((save_dir / TRACKER).read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return 0


def _saved(save_dir: Path) -> list[int]:
    """The iterations of which a save_dir has checkpoints."""
    return [
        number
        for number in iterations(save_dir)
        if any((save_dir / iteration_name(number)).glob("mp_rank_*/*.pt"))
    ]


def _cut_back(save_dir: Path, kept: int, same: int) -> None:
    """Leave what a training to `kept` left. Killed in between, it is done again from its start."""
    track(save_dir, kept)
    aside = _aside(save_dir)
    for iteration in _saved(save_dir):
        if iteration > same:
            aside.mkdir(exist_ok=True)
            name = iteration_name(iteration)
            if (aside / name).exists():
                shutil.rmtree(aside / name)
            (save_dir / name).rename(aside / name)
    if (save_dir / LOSS).is_file():
        LossTable(save_dir / LOSS).begin(kept)
