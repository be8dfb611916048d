"""TensorBoard: event files, which `tensorboard --logdir results` reads while they grow."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

# Seconds after which what was written can be seen.
FLUSH = 5


class Tracker:
    def __init__(self, directory: Path, run: str, settings: Mapping[str, Any], begun: int) -> None:
        self.writer = EventFileWriter(str(directory), flush_secs=FLUSH)
        if begun:
            # Its word for a restart: what was written of this step and later is void.
            restart = SessionLog(status=SessionLog.START)
            self.writer.add_event(Event(step=begun + 1, wall_time=time.time(), session_log=restart))

    def tell(self, iteration: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_event(
                Event(step=iteration, wall_time=time.time(), summary=scalar_pb(name, value))
            )

    def close(self) -> None:
        self.writer.close()
