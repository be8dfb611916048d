"""Progress of long work: a bar on a terminal, now and then a plain line in a log."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)
Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts units of work done. Use as a context manager, and call `advance`.

    what: the work, as a verb. unit: what is counted. total: how many there are, when known.
    done: how many were done before (by an interrupted run).
    """

    def __init__(self, what: str, unit: str, total: int | None = None, done: int = 0) -> None:
        self.what, self.unit, self.total, self.done = what, unit, total, done
        self.begun = self.said = time.monotonic()
        self.first = done
        self.bar = None
        self.bytes = unit == "B"  # told in kB, MB … with a rate

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            self.bar = tqdm(
                desc=self.what, unit=self.unit if self.bytes else f" {self.unit}",
                total=self.total, initial=self.done, leave=False, dynamic_ncols=True,
                unit_scale=self.bytes,
            )  # fmt: skip
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
        seconds = time.monotonic() - self.begun
        if kind is None:
            amount = self._amount(self.done - self.first)
            log.info("%s: %s %s in %.1f s", self.what, amount, self.unit, seconds)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Say that `count` more units are done; `note` is shown beside."""
        self.done += count
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(count)
            return
        now = time.monotonic()
        if now - self.said >= SECONDS_BETWEEN_LINES:
            self.said = now
            of = f" of {self._amount(self.total)}" if self.total else ""
            log.info(
                "%s: %s%s %s%s%s",
                self.what,
                self._amount(self.done),
                of,
                self.unit,
                self._rate(now) + self._left(now),
                note and f", {note}",
            )

    def _amount(self, count: int) -> str:
        return tqdm.format_sizeof(count) if self.bytes else str(count)

    def _rate(self, now: float) -> str:
        if not self.bytes:
            return ""
        return f", {self._amount((self.done - self.first) / (now - self.begun))}{self.unit}/s"

    def _left(self, now: float) -> str:
        if not self.total or self.done <= self.first:
            return ""
        left = (now - self.begun) / (self.done - self.first) * (self.total - self.done)
        return f", {left:.0f} s left"


def progress(
    items: Iterable[Item], what: str, unit: str, total: int | None = None
) -> Iterator[Item]:
    """Yield items, counting them."""
    with Progress(what, unit, total) as shown:
        for item in items:
            yield item
            shown.advance()
