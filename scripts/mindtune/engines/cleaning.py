"""What trainings put aside or keep and answerings left below results/: its size, and its removal."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mindtune.engines.continuation import differences
from mindtune.engines.feature_cache import place_of_features
from mindtune.engines.journal import NAME, parsed
from mindtune.engines.superseded import (
    Generation,
    kept,
    kept_beside,
    kept_in,
    lock_of,
    place_of,
    remove,
    remove_leftovers,
)
from mindtune.errors import UserError
from mindtune.files import bytes_below, regular


@dataclass(frozen=True)
class Aside:
    """Checkpoints that were put aside.

    name: experiment/directory. place: the save_dir beside which they are. size, freed: bytes of
    their files, and of those that nothing else is a name of, which a removal frees.
    """

    name: str
    place: Path
    generation: Generation
    size: int
    freed: int

    def line(self) -> str:
        """What it is, in words."""
        saved = self.generation.saved
        held = f"{len(saved)} checkpoints to iteration {saved[-1]}" if saved else "no checkpoint"
        size = f"{self.size / 1e9:.3f} GB"
        if self.freed != self.size:
            size += f" ({self.freed / 1e9:.3f} GB of its own)"
        return f"{self.name}  {size}, {held}; {self.differing()}"

    def differing(self) -> str:
        """In what its settings differ from those of the save_dir as it is now."""
        if not self.generation.settings:
            return "its settings are not known"
        now = Generation.read(self.place).settings
        if not now:
            return "save_dir has no settings now"
        found = [text for _, text in differences(now, self.generation.settings)]
        return f"now -> there: {', '.join(found)}"

    def remove(self) -> None:
        with FileLock(lock_of(self.place)).acquire(timeout=0):
            remove(self.generation)
            remove_leftovers(self.generation.path.parent)
            with suppress(OSError):  # others are in it
                self.generation.path.parent.rmdir()


@dataclass(frozen=True)
class KeptFeatures:
    """Features of pictures, which trainings keep (`hf.feature_cache`). size: bytes of their files."""

    name: str
    place: Path
    size: int

    def line(self) -> str:
        return (
            f"{self.name}  {self.size / 1e9:.3f} GB, features of pictures that trainings share; "
            "they are computed again when they are wanted"
        )

    def remove(self) -> None:
        """A training that runs computes what it misses."""
        shutil.rmtree(self.place)


@dataclass(frozen=True)
class Left:
    """The journal of an answering that did not end. name: experiment/answers.hash."""

    name: str
    path: Path
    size: int
    answers: int
    prompts: int

    @classmethod
    def read(cls, path: Path) -> "Left":
        content = regular(path).read_bytes()
        prompts, batches, _ = parsed(content)
        match = NAME.fullmatch(path.name)
        name = f"{path.parent.name}/{match['answers']}.{match['key']}"
        return cls(name, path, len(content), sum(map(len, batches)), prompts or 0)

    def line(self) -> str:
        """What it is, in words."""
        return (
            f"{self.name}  {self.size / 1e9:.3f} GB, {self.answers} of {self.prompts} answers of an "
            "interrupted answering"
        )

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def journals_below(results: Path) -> Iterator[Left]:
    """What interrupted answerings left, experiment by experiment."""
    for path in sorted(results.glob("*/.*.journal")):
        if NAME.fullmatch(path.name) and path.is_file():
            yield Left.read(path)


Removable = Aside | KeptFeatures | Left


def removable_below(results: Path) -> Iterator[Removable]:
    """All that trainings put aside or keep, and what interrupted answerings left."""
    yield from put_aside_below(results)
    yield from journals_below(results)
    place = place_of_features(results / "any" / "save_dir")
    if place.is_dir():
        yield KeptFeatures(f"{place.parent.name}/{place.name}", place, bytes_below(place))


def put_aside_below(results: Path) -> Iterator[Aside]:
    """All that trainings put aside, experiment by experiment.

    Where save_dir is a link, what was put aside before it became one counts too.
    """
    found = [*results.glob("*/save_dir"), *results.glob("*/save_dir.superseded")]
    for experiment in sorted({path.parent for path in found}):
        place = place_of(experiment / "save_dir")
        before = kept_beside(experiment / "save_dir")
        others = [] if before.resolve() == kept_beside(place) else kept_in(before)
        for generation in [*kept(place), *others]:
            yield _aside(f"{experiment.name}/{generation.path.name}", place, generation)


def chosen(found: Iterable[Removable], names: Iterable[str]) -> list[Removable]:
    """Those with these names.

    Raises
    ------
    UserError: one is not there.
    """
    found = list(found)
    unknown = [name for name in names if name not in {aside.name for aside in found}]
    if unknown:
        there = ", ".join(aside.name for aside in found) or "nothing is put aside"
        raise UserError(f"{unknown[0]} is not put aside here; give a name of the list: {there}.")
    return [aside for aside in found if aside.name in set(names)]


def remove_for_good(found: Removable) -> None:
    """
    Raises
    ------
    UserError: a training of the experiment runs, or it can't be removed.
    """
    try:
        found.remove()
    except Timeout as error:
        raise UserError(
            f"a training is writing to {found.place}; wait until it ends, and remove then."
        ) from error
    except OSError as error:
        raise UserError(f"{error.filename} can't be removed: {error.strerror}.") from error


def _aside(name: str, place: Path, generation: Generation) -> Aside:
    files = [path.lstat() for path in generation.path.rglob("*") if not path.is_dir()]
    return Aside(
        name,
        place,
        generation,
        sum(file.st_size for file in files),
        sum(file.st_size for file in files if file.st_nlink == 1),
    )
