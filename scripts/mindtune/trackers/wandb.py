"""Weights & Biases. Offline unless WANDB_MODE says otherwise: `wandb sync` uploads a run later."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from mindtune.trackers.identity import identity

PROJECT = "mindtune"


class Tracker:
    def __init__(self, directory: Path, run: str, settings: Mapping[str, Any], begun: int) -> None:
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run,
            id=identity(directory),
            resume="allow",
            dir=directory,
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=dict(settings),
            settings=wandb.Settings(console="off", silent=True),
        )

    def tell(self, iteration: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=iteration)

    def close(self) -> None:
        self.run.finish()
