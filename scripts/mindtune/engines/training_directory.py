"""A training's save_dir: one training at a time, and of one set of settings."""

import hashlib
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mindtune.checkpoint.megatron import iteration_name, track
from mindtune.engines.continuation import Continuation, continuation
from mindtune.engines.loss_table import LOSS, LossTable
from mindtune.engines.superseded import (
    MARK,
    SETTINGS,
    Generation,
    bring_back,
    kept,
    lock_of,
    place_of,
    put_aside,
)
from mindtune.errors import UserError
from mindtune.files import regular, sha256_file, write_json, writing_directory

log = logging.getLogger(__name__)

NOTHING = Continuation(0, "unknown", "")


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A short hash of everything that a training's result depends on."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content_of(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of some files, by the name they are given.

    Raises
    ------
    UserError: one is not there, or something else than a file.
    """
    return {name: sha256_file(regular(path)) for name, path in files.items()}


def content_of_checkpoint(mm_dir: Path) -> str:
    """A hash of an mm checkpoint's content, from the checksums that its zip files carry.

    It reads the directories of the archives only, so that it costs nothing at any size.

    Raises
    ------
    UserError: a file of it is not whole.
    """
    digest = hashlib.sha256()
    for path in sorted(mm_dir.rglob("*.pt")):
        digest.update(f"{path.relative_to(mm_dir)}\0".encode())
        for entry in _entries(path):
            digest.update(f"{entry.filename} {entry.file_size} {entry.CRC}\0".encode())
    return digest.hexdigest()


def _entries(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(regular(path)) as archive:
            return archive.infolist()
    except zipfile.BadZipFile as error:
        raise UserError(
            f"the checkpoint file {path} is not whole ({error}); remove the checkpoint, and run the "
            "same command again to have it written again."
        ) from error


@contextmanager
def claimed(
    save_dir: Path, settings: Mapping[str, Any], check: Callable[[int], None] = lambda begun: None
) -> Iterator[str]:
    """Hold a save_dir for one training of these settings; yields their fingerprint.

    Checkpoints of the same settings are taken up, from save_dir or from where they were put
    aside; so are those of other settings, up to the iteration to which both are the same (see
    `mindtune.engines.continuation`). What save_dir holds of other settings is put aside, never removed
    (see `mindtune.engines.superseded`). Each step is one rename, and a process that is killed between two
    leaves what the next one understands.

    check: gets the iteration from which the training would go on, 0 for the base, before anything
    is moved, and may raise.

    Raises
    ------
    UserError: another training holds it, or it can't be used.
    """
    save_dir.parent.mkdir(parents=True, exist_ok=True)
    place = place_of(save_dir)
    try:
        with FileLock(lock_of(place)).acquire(timeout=0):
            choice = _choose(place, settings)
            check(choice.iteration)
            _take(place, choice, settings)
            yield fingerprint(settings)
    except Timeout as error:
        raise UserError(
            f"another training is writing to {save_dir}; wait until it ends, or stop it, and run "
            "the same command again."
        ) from error


@dataclass(frozen=True)
class _Choice:
    """From where a training goes on.

    source: None for the base. iteration: its newest usable checkpoint. common: what the settings
    of the source have in common with the wanted ones; None when they are the same.
    """

    source: Generation | None
    iteration: int
    common: Continuation | None


def _choose(place: Path, settings: Mapping[str, Any]) -> _Choice:
    """The best there is: the same settings, or else the longest beginning of the training."""
    mark, last = fingerprint(settings), settings.get("train", {}).get("train_iters", 0)
    here = [Generation.read(place)] if place.is_dir() else []
    found = [*here, *kept(place)]
    same = [one for one in found if one.mark == mark]
    if same:
        source = same[0] if same[0] in here else max(same, key=lambda one: one.newest(last))
        return _Choice(source, source.newest(last), None)
    best = _Choice(None, 0, None)
    for source in found:
        common = continuation(source.settings, settings) if source.settings else NOTHING
        usable = source.newest(common.iteration)
        if usable > best.iteration:
            best = _Choice(source, usable, common)
    return best


def _take(place: Path, choice: _Choice, settings: Mapping[str, Any]) -> None:
    source = choice.source
    if source and source.path == place and choice.common is None:
        return
    if place.is_dir() and not (here := Generation.read(place)).is_empty:
        common = continuation(here.settings, settings) if here.settings else NOTHING
        aside = put_aside(place)
        _say_what_is_put_aside(place, aside, common, choice)
        place.mkdir()
        shutil.copymode(aside, place)  # of a shared disk's directory, as its owner wants it
        if source and source.path == place:
            source = Generation.read(aside)
    if source and choice.common is None:
        bring_back(source, place)
        log.info("the checkpoints of these settings are there: taken up again from %s", source.path)
    elif source:
        _begin_with(place, source, choice, settings)
    else:
        place.mkdir(exist_ok=True)
        _record(place, settings)


def _say_what_is_put_aside(place: Path, aside: Path, common: Continuation, choice: _Choice) -> None:
    because = f"; {common.reason}" if common.reason and choice.source is None else ""
    log.info(
        "%s holds checkpoints of other settings: put aside as %s (%s)%s; `python scripts/clean.py` "
        "shows and removes what is put aside",
        place, aside, common.changed or "their settings are not known", because,
    )  # fmt: skip


def _begin_with(
    place: Path, source: Generation, choice: _Choice, settings: Mapping[str, Any]
) -> None:
    """Make a save_dir of another one's first checkpoints. They are links, and take no space."""
    with writing_directory(place) as begun:
        if place.is_dir():
            shutil.copymode(place, begun)
        for iteration in source.saved:
            if iteration <= choice.iteration:
                name = iteration_name(iteration)
                shutil.copytree(source.path / name, begun / name, copy_function=_link)
        if (source.path / LOSS).is_file():
            shutil.copyfile(source.path / LOSS, begun / LOSS)
            LossTable(begun / LOSS).begin(choice.iteration)
        track(begun, choice.iteration)
        _record(begun, settings)
    log.info(
        "checkpoints of other settings (%s) are the same up to iteration %d: resuming from iteration "
        "%d of %s%s",
        choice.common.changed, choice.common.iteration, choice.iteration, source.path,
        f"; {choice.common.reason}" if choice.common.reason else "",
    )  # fmt: skip


def _link(source: str, target: str) -> None:
    """Another name for a file, which is never written again; a copy where there can be none."""
    try:
        os.link(Path(source).resolve(), target)
    except OSError:
        shutil.copy2(source, target)


def _record(place: Path, settings: Mapping[str, Any]) -> None:
    write_json(place / SETTINGS, {MARK: fingerprint(settings), **settings})
