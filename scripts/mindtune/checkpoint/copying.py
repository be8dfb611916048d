"""Moving the bytes that views describe: in chunks, by several threads, in constant memory."""

import os
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from mindtune.checkpoint.views import Patch, View
from mindtune.errors import UserError

CHUNK = 1 << 20  # bytes of each thread's buffers

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)


class Buffers:
    """A thread's two reusable buffers: the chunk it hands out, and rows read on the way."""

    def __init__(self) -> None:
        self.chunk = memoryview(bytearray(CHUNK))
        self._rows = bytearray()

    def rows(self, size: int) -> memoryview:
        """At least `size` bytes, as exactly `size`."""
        if len(self._rows) < size:
            self._rows = bytearray(size)
        return memoryview(self._rows)[:size]


def stream(view: View, buffers: Buffers) -> Iterator[memoryview]:
    """The view's bytes in order (row after row), in chunks of at most `CHUNK` bytes.

    A chunk is valid until the next one is asked for.
    """
    out = buffers.chunk
    filled = 0
    for band in _bands(view):
        if len(band) == 1 and band[0].width == view.row_bytes == band[0].pitch:
            patch = band[0]
            position, end = patch.start, patch.start + patch.rows * patch.width
            while position < end:
                size = min(end - position, CHUNK - filled)
                patch.source.read_into(out[filled : filled + size], position)
                position += size
                filled += size
                if filled == CHUNK:
                    yield out
                    filled = 0
            continue
        for rows in _gathered(band, view.row_bytes, buffers):
            position = 0
            while position < len(rows):
                size = min(len(rows) - position, CHUNK - filled)
                out[filled : filled + size] = rows[position : position + size]
                position += size
                filled += size
                if filled == CHUNK:
                    yield out
                    filled = 0
    if filled:
        yield out[:filled]


def _bands(view: View) -> Iterator[list[Patch]]:
    """Runs of rows that the same patches cover side by side, cut to those rows."""
    if all(patch.width == view.row_bytes for patch in view.patches):
        for patch in view.patches:
            yield [patch]
        return
    edges = sorted({edge for p in view.patches for edge in (p.row, p.row + p.rows)})
    for low, high in pairwise(edges):
        yield [
            Patch(
                low,
                p.column,
                high - low,
                p.width,
                p.source,
                p.start + (low - p.row) * p.pitch,
                p.pitch,
            )
            for p in view.patches
            if p.row <= low and high <= p.row + p.rows
        ]


def _gathered(band: Sequence[Patch], row_bytes: int, buffers: Buffers) -> Iterator[memoryview]:
    """The rows of a band, put together from its patches, as many at a time as fit a chunk."""
    import numpy as np  # only needed where columns are cut or joined

    rows = band[0].rows
    widest = max(row_bytes, *(patch.pitch for patch in band))
    step = max(1, CHUNK // widest)
    joined = np.empty((min(step, rows), row_bytes), dtype=np.uint8)
    for first in range(0, rows, step):
        count = min(step, rows - first)
        for p in band:
            span = (count - 1) * p.pitch + p.width
            raw = buffers.rows(span)
            p.source.read_into(raw, p.start + first * p.pitch)
            block = np.ndarray((count, p.width), np.uint8, raw, strides=(p.pitch, 1))
            joined[:count, p.column : p.column + p.width] = block
        yield memoryview(joined[:count]).cast("B")


@dataclass(slots=True)
class Target:
    """A place in an output file for a view's bytes; `crc` is their CRC-32 once written."""

    fd: int
    offset: int
    view: View
    want_crc: bool = True
    crc: int = 0


def write_all(
    targets: Sequence[Target], *, workers: int = 1, progress: Progress | None = None
) -> None:
    """Write every target's bytes to its place, by `workers` threads.

    On the first error the others stop and it is raised (a full disk: as UserError).
    """
    total = sum(target.view.nbytes for target in targets)
    run_all([_Write(target) for target in targets], total, workers=workers, progress=progress)


class _Write:
    def __init__(self, target: Target):
        self.target = target

    def __call__(self, buffers: Buffers) -> Iterator[int]:
        target = self.target
        offset, crc = target.offset, 0
        for chunk in stream(target.view, buffers):
            if target.want_crc:
                crc = zlib.crc32(chunk, crc)
            pwrite(target.fd, chunk, offset)
            offset += len(chunk)
            yield len(chunk)
        target.crc = crc


def pwrite(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`; UserError if the disk does not take it."""
    view = memoryview(data)
    while view:
        try:
            count = os.pwrite(fd, view, offset)
        except OSError as error:
            raise UserError(f"the result cannot be written: {error.strerror}") from None
        view, offset = view[count:], offset + count


def run_all(
    tasks: Iterable[Callable[[Buffers], Iterator[int]]],
    total: int,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> None:
    """Run tasks, each of which yields the number of bytes it has just dealt with.

    The first error of any task stops the others at their next chunk and is raised.
    """
    local = threading.local()
    lock = threading.Lock()
    stop = threading.Event()
    done = 0

    def run(task: Callable[[Buffers], Iterator[int]]) -> None:
        nonlocal done
        if not hasattr(local, "buffers"):
            local.buffers = Buffers()
        for count in task(local.buffers):
            if stop.is_set():
                return
            if progress:
                with lock:
                    done += count
                    progress(done, total)

    if workers <= 1:
        for task in tasks:
            run(task)
        return
    with ThreadPoolExecutor(workers) as pool:
        try:
            futures = [pool.submit(run, task) for task in tasks]
            finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in finished:
                future.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


@contextmanager
def creating(path: Path, size: int) -> Iterator[int]:
    """A new file of `size` bytes as a file descriptor to write to at any position."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.ftruncate(fd, size)
        yield fd
    finally:
        os.close(fd)
