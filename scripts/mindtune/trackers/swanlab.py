"""SwanLab. Offline unless SWANLAB_MODE says otherwise: `swanlab sync` uploads a run later."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import swanlab

from mindtune.trackers.identity import identity

PROJECT = "mindtune"


class Tracker:
    def __init__(self, directory: Path, run: str, settings: Mapping[str, Any], begun: int) -> None:
        mode = os.environ.get("SWANLAB_MODE", "offline")
        # A run that is kept on this machine can't be taken up again: it is one more.
        again = {"id": identity(directory), "resume": "allow"} if mode == "online" else {}
        self.run = swanlab.init(
            project=os.environ.get("SWANLAB_PROJECT", PROJECT),
            name=run,
            log_dir=str(directory),
            mode=mode,
            config=dict(settings),
            **again,
        )

    def tell(self, iteration: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=iteration)

    def close(self) -> None:
        self.run.finish()
