"""Megatron's training log, read by the names of its fields and never by their places.

A line of an iteration is ` [time] iteration 1/ 100 | name: value | name: value | …`. Which
fields there are depends on options: a gradient norm only with clipping, a throughput only when
asked for; and a loss that is zero or not a number is left out.
"""

import re
from dataclasses import dataclass
from datetime import datetime

ITERATION = re.compile(
    r"\[(?P<time>[^\[\]]+)\] iteration\s+(?P<iteration>\d+)/\s*(?P<total>\d+) \|(?P<rest>.*)$"
)
# The last field of every line: a line without it is cut.
LAST = "number of nan iterations"
FIELD = re.compile(r"\s*(?P<name>[^:|]+?)\s*:\s*(?P<value>[^|]*?)\s*(?:\||$)")
LOADED = re.compile(r"successfully loaded checkpoint from (?P<path>.+?) \[ t \d+, p \d+ \]")
SAVED = re.compile(r"successfully saved checkpoint from iteration\s+(?P<iteration>\d+) to ")
DONE = "[after training is done]"


@dataclass(frozen=True)
class Iteration:
    """One iteration as the log tells it. None where the line has no such field.

    lr: the learning rate after the iteration. loss: mean over the global batch.
    milliseconds: of the iteration.
    """

    iteration: int
    total: int
    consumed_samples: int | None
    lr: float | None
    loss: float | None
    grad_norm: float | None
    milliseconds: float | None
    global_batch_size: int | None
    nan_iterations: int
    skipped_iterations: int
    time: datetime | None

    @property
    def samples_per_second(self) -> float | None:
        if not (self.milliseconds and self.global_batch_size):
            return None
        return self.global_batch_size * 1000 / self.milliseconds


def parse_iteration(line: str) -> Iteration | None:
    """The iteration that a line tells of; None for any other line, and for one that is cut.

    Ranks share one pipe, so that another's words may stand before and after it.
    """
    match = ITERATION.search(line)
    if not match:
        return None
    rest = match["rest"]
    fields = {
        found["name"]: found["value"] for found in FIELD.finditer(rest[: rest.rfind("|") + 1])
    }
    if LAST not in fields:
        return None

    def number(name: str) -> float | None:
        try:
            return float(fields[name])
        except (KeyError, ValueError):
            return None

    def whole(name: str) -> int | None:
        value = number(name)
        return int(value) if value is not None and value == int(value) else None

    return Iteration(
        iteration=int(match["iteration"]),
        total=int(match["total"]),
        consumed_samples=whole("consumed samples"),
        lr=number("learning rate"),
        loss=number("loss"),
        grad_norm=number("grad norm"),
        milliseconds=number("elapsed time per iteration (ms)"),
        global_batch_size=whole("global batch size"),
        nan_iterations=whole("number of nan iterations") or 0,
        skipped_iterations=whole("number of skipped iterations") or 0,
        time=_time(match["time"]),
    )


def _time(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S")
    except ValueError:
        return None


def loaded_path(line: str) -> str | None:
    """The directory from which a line says that a checkpoint was loaded."""
    match = LOADED.search(line)
    return match["path"] if match else None


def saved_iteration(line: str) -> int | None:
    """The iteration whose checkpoint a line says is written."""
    match = SAVED.search(line)
    return int(match["iteration"]) if match else None
