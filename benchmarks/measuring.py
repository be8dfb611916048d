"""Rows of a table that are measured one after another, each measure in a process of its own.

What a measure has found is there at once, whatever becomes of it later: of memory that is not enough, of
an error, or of its time. A process that is forked has all that is imported already.
"""

import gc
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from mindtune.errors import UserError

Say = Callable[[Any], None]
SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_TO_END = 20.0


@dataclass(frozen=True)
class Row:
    """A line of the table. goal: what is wanted at the full size on an H100."""

    what: str
    value: float | None
    unit: str
    note: str = ""
    goal: str = ""

    def __str__(self) -> str:
        value = "-" if self.value is None else f"{self.value:,.4g} {self.unit}".strip()
        return f"| {self.what} | {value} | {self.goal} | {self.note} |"


@dataclass(frozen=True)
class Measure:
    """work: gives rows to `say` of what it is called with. seconds: what it takes at the full size on an
    H100, amply."""

    work: Callable[[Any], None]
    seconds: float


@dataclass(frozen=True)
class End:
    """How a measure came to its end. words: why it did too early. fault: whether nobody expected it."""

    words: str = ""
    fault: bool = False


@dataclass
class Table:
    """All rows; out: gets them as JSON after each one, and what they are `about`."""

    about: str = ""
    out: Path | None = None
    rows: list[Row] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print(row, flush=True)
        self.write()

    def write(self) -> None:
        if self.out:
            found = {
                "about": self.about,
                "rows": [asdict(row) for row in self.rows],
                "seconds": self.seconds,
            }
            self.out.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")

    def __str__(self) -> str:
        head = "| | measured | to reach (H100, 2B) | |\n|---|---|---|---|"
        took = ", ".join(f"{name} {seconds:.0f}" for name, seconds in self.seconds.items())
        return "\n".join([head, *map(str, self.rows)]) + f"\n\nSeconds of each: {took}."


def measure_all(
    measures: Mapping[str, Measure],
    bench: Any,
    table: Table,
    ends: float,
    scale: float,
    forked: bool,
) -> bool:
    """Measure one after another; returns whether nothing unexpected has happened.

    Each may take twice its `seconds` x `scale`, and none begins that may not be done until `ends`, of
    the monotonic clock. forked: whether they have processes of their own, without which nothing ends them.
    """
    good = True
    for name, measure in measures.items():
        left, wanted = ends - time.monotonic(), measure.seconds * scale
        if left < wanted:
            words = (
                f"left out for time: it may take {wanted:.0f} s, and {max(0, left):.0f} are left"
            )
            table.add(Row(name, None, "", words))
            continue
        begun = time.monotonic()
        limit = min(2 * wanted, left)
        end = apart(measure.work, bench, limit, table.add) if forked else here(
            measure.work, bench, table.add
        )  # fmt: skip
        table.seconds[name] = time.monotonic() - begun
        if end.words:
            table.add(Row(name, None, "", f"not measured: {end.words}"))
        table.write()
        good = good and not end.fault
    return good


def here(work: Callable[[Any], None], bench: Any, say: Say) -> End:
    """Call `work(bench)` in this process; what it gives to `bench.say` goes to `say`."""
    bench.say = say
    try:
        work(bench)
    except UserError as error:
        return End(" ".join(str(error).split()))
    except Exception as error:
        words = (str(error).splitlines() or [""])[0][:200]
        if isinstance(error, torch.OutOfMemoryError) or "out of memory" in words:
            return End(words)
        traceback.print_exc()
        return End(f"{type(error).__name__}: {words}", fault=True)
    finally:
        gc.collect()
    return End()


def apart(work: Callable[[Any], None], bench: Any, limit: float, say: Say) -> End:
    """The same in a process of its own, which is ended after `limit` seconds."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    sys.stdout.flush()
    sys.stderr.flush()
    child = context.Process(target=_inside, args=(work, bench, theirs))
    child.start()
    theirs.close()
    until = time.monotonic() + limit
    try:
        while time.monotonic() < until:
            if ours.poll(SECONDS_BETWEEN_LOOKS):
                said = ours.recv()
                if isinstance(said, End):
                    child.join(SECONDS_TO_END)  # which frees the device's memory
                    return said
                say(said)
            elif not child.is_alive() and not ours.poll():
                break
    except EOFError:
        child.join(SECONDS_TO_END)
    finally:
        ended = not child.is_alive()
        if not ended:
            _end(child)
    if not ended:
        return End(f"it was ended after {limit:.0f} s, its time")
    number = -(child.exitcode or 0)
    name = signal.Signals(number).name if number > 0 else f"status {child.exitcode}"
    return End(f"its process ended by itself ({name})", fault=True)


def _inside(work: Callable[[Any], None], bench: Any, telling: Any) -> None:
    os.setsid()  # its loaders end with it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    telling.send(here(work, bench, telling.send))


def _end(child: multiprocessing.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.join()
