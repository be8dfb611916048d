"""Checkpoints that were put aside for those of other settings, and are kept until they are wanted.

    results/baseline/save_dir                                   what is trained now
    results/baseline/save_dir.superseded/0123456789abcdef/      of the settings with this fingerprint

Where save_dir is a symbolic link, as to a scratch disk, both are beside what the link leads to: a
directory can only be renamed within one file system, and the link itself stays as it is.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mindtune.checkpoint.megatron import TRACKER, iteration_name, iterations
from mindtune.errors import UserError
from mindtune.files import discard_partials, regular, sync_directory

SETTINGS = "settings.json"
MARK = "fingerprint"
ADOPTED = "adopted"
UNKNOWN = "unknown"
REMOVING = ".removing."
_MARK = re.compile(r"[0-9a-f]{16}")


def place_of(save_dir: Path) -> Path:
    """Where a save_dir is, itself or by links.

    Raises
    ------
    UserError: its link leads nowhere, or there is something else than a directory.
    """
    try:
        place = save_dir.resolve()
        there = place.is_dir() or place.parent.is_dir()
        other = place.exists() and not place.is_dir()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop, before Python 3.13
        raise UserError(f"{save_dir} is a link that leads nowhere ({error}); remove it.") from error
    if save_dir.is_symlink() and (not there or place.is_symlink()):
        raise UserError(
            f"{save_dir} is a link to {save_dir.readlink()}, which is in no directory that is there; "
            "mount or make that directory, or remove the link."
        )
    if other:
        raise UserError(f"{save_dir} must be a directory, but {place} is something else; move it.")
    return place


def kept_beside(place: Path) -> Path:
    """The directory in which checkpoints of other settings are kept."""
    return place.with_name(f"{place.name}.superseded")


def lock_of(place: Path) -> Path:
    """The lock file of a save_dir and of all that is kept beside it."""
    return place.with_name(f".{place.name}.lock")


@dataclass(frozen=True)
class Generation:
    """A directory of checkpoints: the save_dir itself, or one that was put aside."""

    path: Path
    recorded: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Generation":
        """
        Raises
        ------
        UserError: the record of its settings is not a file.
        """
        record = path / SETTINGS
        if not record.exists():
            return cls(path)
        try:
            found = json.loads(regular(record).read_bytes())
        except ValueError:
            found = None
        return cls(path, found if isinstance(found, dict) else {})

    @property
    def mark(self) -> str | None:
        """The fingerprint of its settings; None where they are not known."""
        return self.recorded.get(MARK)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that it was made with; empty where they are not known."""
        return {key: value for key, value in self.recorded.items() if key not in (MARK, ADOPTED)}

    @property
    def adopted(self) -> list[dict[str, Any]]:
        """Which code made it, up to which iteration, each time that it was taken for later code's."""
        found = self.recorded.get(ADOPTED)
        return found if isinstance(found, list) else []

    @cached_property
    def tracked(self) -> int:
        """What the tracker names, 0 for nothing: Megatron writes it when a checkpoint is whole."""
        path = self.path / TRACKER
        if not path.exists():
            return 0
        text = regular(path).read_bytes().strip()
        return int(text) if text.isdigit() and len(text) < 10 else 0

    @cached_property
    def saved(self) -> tuple[int, ...]:
        """The iterations of which it has checkpoints, in order."""
        return tuple(
            number
            for number in iterations(self.path)
            if any((self.path / iteration_name(number)).glob("mp_rank_*/*.pt"))
        )

    def newest(self, at_most: int) -> int:
        """The newest checkpoint that is whole as the tracker says, 0 for none."""
        last = min(at_most, self.tracked)
        return max((number for number in self.saved if number <= last), default=0)

    @property
    def is_empty(self) -> bool:
        discard_partials(self.path / SETTINGS)
        return not any(self.path.iterdir())


def kept(place: Path) -> Iterator[Generation]:
    """What is kept beside a save_dir, by name."""
    return kept_in(kept_beside(place))


def kept_in(directory: Path) -> Iterator[Generation]:
    """What is kept in such a directory, by name."""
    if directory.is_dir():
        for path in sorted(directory.iterdir()):
            if path.is_dir() and not path.name.startswith("."):
                yield Generation.read(path)


def put_aside(place: Path) -> Path:
    """Rename a save_dir to a name of its settings, which no other has; returns that.

    Raises
    ------
    UserError: it can't be renamed.
    """
    mark = Generation.read(place).mark
    name = mark if isinstance(mark, str) and _MARK.fullmatch(mark) else UNKNOWN
    directory = kept_beside(place)
    aside, number = directory / name, 1
    while aside.exists() or aside.is_symlink():
        number += 1
        aside = directory / f"{name}-{number}"
    try:
        directory.mkdir(exist_ok=True)
        place.rename(aside)
    except OSError as error:
        raise UserError(
            f"{place} holds checkpoints of other settings and can't be renamed to {aside} "
            f"({error.strerror}); if it is a mount point, make save_dir a link to a directory below it."
        ) from error
    sync_directory(directory)
    return aside


def bring_back(generation: Generation, place: Path) -> None:
    """Rename what was put aside to be the save_dir again; there must be none, or an empty one."""
    generation.path.rename(place)
    sync_directory(place.parent)


def remove(generation: Generation) -> None:
    """Remove what was put aside. From the first moment on it is nothing to be brought back."""
    going = generation.path.with_name(f"{REMOVING}{generation.path.name}")
    if going.exists():
        shutil.rmtree(going)
    generation.path.rename(going)
    shutil.rmtree(going)


def remove_leftovers(directory: Path) -> None:
    """Finish removals that were interrupted, in a directory of what is kept."""
    for left in directory.glob(f"{REMOVING}*"):
        shutil.rmtree(left)
