"""Trackers: programs that show a training while it runs, from the rows of its loss.csv.

A tracker is a module here, named as its package, with a class:

    Tracker(directory, run, settings, begun)   opens it, in a directory of its own; the rows up to
                                               `begun` were told before
    .tell(iteration, values)                   column -> number, for each iteration in turn
    .close()

No result depends on them: they are in no parameter of a rule and in no fingerprint, their code in
no hash, and one that fails is left out with a warning. None needs an account or a network: see
docs/howto.md.
"""

import logging
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

TRACKERS = ("tensorboard", "swanlab", "wandb")
# In save_dir: what follows a training goes aside with it.
PLACE = "trackers"
# In a tracker's directory, once it was told what came before.
KNOWN = "follows"
ITERATION = "iteration"

log = logging.getLogger(__name__)


def missing(names: Sequence[str]) -> list[str]:
    """Those of some trackers whose packages are not installed."""
    return [name for name in names if find_spec(name) is None]


class Followers:
    """The trackers that follow one training."""

    def __init__(
        self, names: Sequence[str], place: Path, run: str, settings: Mapping[str, Any]
    ) -> None:
        """place: gets a directory for each. run, settings: as which they show it."""
        self.names = names
        self.place = place
        self.run = run
        self.settings = settings
        self.trackers: dict[str, Any] = {}

    def begin(self, iteration: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """The training begins behind an iteration. rows: of loss.csv, up to it.

        A tracker that was not there from the beginning is told these first.
        """
        self.close()
        for name in self.names:
            directory = self.place / name
            known = (directory / KNOWN).is_file()
            try:
                directory.mkdir(parents=True, exist_ok=True)
                module = import_module(f"{__name__}.{name}")
                self.trackers[name] = module.Tracker(
                    directory, self.run, self.settings, iteration if known else 0
                )
            except Exception as error:
                _left_out(name, error)
            for row in () if known else rows:
                self._tell(name, row)
            if name in self.trackers:
                (directory / KNOWN).touch()

    def append(self, row: Mapping[str, Any]) -> None:
        for name in list(self.trackers):
            self._tell(name, row)

    def _tell(self, name: str, row: Mapping[str, Any]) -> None:
        if name not in self.trackers:
            return
        values = {key: float(value) for key, value in row.items() if value not in ("", None)}
        try:
            self.trackers[name].tell(int(values.pop(ITERATION)), values)
        except Exception as error:
            del self.trackers[name]
            _left_out(name, error)

    def close(self) -> None:
        while self.trackers:
            name, tracker = self.trackers.popitem()
            try:
                tracker.close()
            except Exception as error:
                _left_out(name, error)


def _left_out(name: str, error: Exception) -> None:
    log.warning(
        "%s fails (%s: %s): the training goes on without it", name, type(error).__name__, error
    )
