"""A training's save_dir: one training at a time, and of one set of settings."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mindtune.checkpoint.content import content_of_checkpoint
from mindtune.checkpoint.megatron import iteration_name, track
from mindtune.engines.continuation import Continuation, continuation, differences
from mindtune.engines.loss_table import LOSS, LossTable
from mindtune.engines.superseded import (
    ADOPTED,
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
CONTENT = "content"
SECTIONS = ("train", "processor", "parallel", "machine")


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


def training_settings(
    engine: str, code: str, sections: Mapping[str, Any], content: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that a training's result depends on, as save_dir records it.

    sections: `train`, `processor`, `parallel` and `machine`. content: see `training_content`.
    """
    own = {name: dict(sections[name]) for name in SECTIONS}
    return {"engine": engine, "code": code, **own, CONTENT: dict(content)}


def training_content(train: Path, held_out: Path, hf_dir: Path, mm_dir: Path) -> dict[str, str]:
    """Hashes of all that a training reads, but for the pictures.

    Raises
    ------
    UserError: a file is not there, or not whole.
    """
    files = {"train_data": train, "held_out_data": held_out, "config": hf_dir / "config.json"}
    return content_of(files) | {"base_checkpoint": content_of_checkpoint(mm_dir)}


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
    UserError: another training holds it, it can't be used, or only the code is another one: then
        its user has to say whether it counts (`adopt`) or is to be put aside (`put_aside`).
    """
    with held(save_dir) as place:
        choice = _choose(place, settings)
        if choice.source is None and (finished := of_other_code(place, settings)):
            raise UserError(only_code(save_dir, finished))
        check(choice.iteration)
        _take(place, choice, settings)
        yield fingerprint(settings)


@contextmanager
def held(save_dir: Path) -> Iterator[Path]:
    """Hold the lock of a save_dir; yields where it is.

    Raises
    ------
    UserError: a training holds it.
    """
    save_dir.parent.mkdir(parents=True, exist_ok=True)
    place = place_of(save_dir)
    try:
        with FileLock(lock_of(place)).acquire(timeout=0):
            yield place
    except Timeout as error:
        raise UserError(
            f"another training is writing to {save_dir}; wait until it ends, or stop it, and run "
            "the same command again."
        ) from error


def of_other_code(place: Path, settings: Mapping[str, Any]) -> int:
    """The newest iteration of a save_dir that differs from these settings in its code only, or 0.

    settings: without `content`, that isn't compared.
    """
    here = Generation.read(place) if place.is_dir() else None
    if here is None or not here.settings:
        return 0
    left_out = {CONTENT} - {*settings}
    changed = [key for key, _ in differences(_but(here.settings, left_out), _plain(settings))]
    return here.newest(settings["train"]["train_iters"]) if changed == ["code"] else 0


def is_kept(place: Path, settings: Mapping[str, Any]) -> bool:
    """Whether checkpoints of these settings, without `content`, are kept beside a save_dir."""
    return any(_but(one.settings, {CONTENT}) == _plain(settings) for one in kept(place))


def _but(settings: Mapping[str, Any], left_out: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in left_out}


def only_code(save_dir: Path, iteration: int) -> str:
    """What to say where nothing but the code of a save_dir is another one."""
    return (
        f"{save_dir} has checkpoints up to iteration {iteration} of the same settings, but of other "
        "code, and is left as it is: `python scripts/adopt.py` lists what can be taken over from other "
        f"code, and does so with --yes; `python scripts/adopt.py --again {save_dir.parent.name}` puts "
        "the checkpoints aside, and the next command trains again."
    )


def adopt(save_dir: Path, settings: Mapping[str, Any]) -> str:
    """Take the checkpoints of a save_dir for those of today's code; returns their fingerprint.

    Its record is replaced in one step, and says which code trained up to which iteration. What is
    adopted already stays as it is.

    settings: see `training_settings`; `content` as it was recorded counts, so that a training which
    goes on compares it.

    Raises
    ------
    UserError: a training holds it, or something else than the code differs.
    """
    with held(save_dir) as place:
        here = Generation.read(place)
        now = here.settings | {"code": settings["code"]}
        if here.settings == now:
            return fingerprint(now)
        if not of_other_code(place, settings):
            raise UserError(f"{save_dir} has other settings than today's, or no checkpoint.")
        note = {
            "made_by": here.settings["code"],
            "iteration": here.tracked,
            "adopted_as": settings["code"],
        }
        _record(place, now, [*here.adopted, note])
        return fingerprint(now)


def adoptions(save_dir: Path) -> list[dict[str, Any]]:
    """From which code a save_dir was adopted, and up to which iteration, each time."""
    return Generation.read(place_of(save_dir)).adopted


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they are read back from a record."""
    return json.loads(json.dumps(settings))


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
        aside = clear(place)
        _say_what_is_put_aside(place, aside, common, choice)
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


def clear(place: Path) -> Path:
    """Put what a save_dir holds aside, and leave an empty one; returns where it is now."""
    aside = put_aside(place)
    place.mkdir()
    shutil.copymode(aside, place)  # of a shared disk's directory, as its owner wants it
    return aside


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
        _record(begun, settings, source.adopted)
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


def _record(
    place: Path, settings: Mapping[str, Any], adopted: Sequence[Mapping[str, Any]] = ()
) -> None:
    note = {ADOPTED: list(adopted)} if adopted else {}
    write_json(place / SETTINGS, {MARK: fingerprint(settings), **note, **settings})
