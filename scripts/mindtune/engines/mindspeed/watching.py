"""Listening to a program of the framework that loads a checkpoint."""

from dataclasses import dataclass, field
from pathlib import Path

from mindtune.engines.mindspeed.faults import FaultWatch
from mindtune.engines.mindspeed.training_log import loaded_path


@dataclass(kw_only=True)
class Watch:
    """Hears whose weights were loaded, and what goes wrong.

    load: the directory from which the weights have to come.
    """

    load: Path
    faults: FaultWatch = field(default_factory=FaultWatch)
    loaded: bool = False

    def hear(self, line: str) -> None:
        """
        Raises
        ------
        UserError: the line says that the run is worth nothing.
        """
        self.faults.hear(line)
        self.loaded |= loaded_path(line) == str(self.load)
