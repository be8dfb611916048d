"""Moving the bytes that views describe: in chunks, by several threads, in constant memory."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from mindtune.errors import UserError
from mindtune.formats.checksum import crc32
from mindtune.formats.views import Patch, View

CHUNK = 1 << 18  # bytes of each thread's buffer: small enough for a core's own cache

TOGETHER = 2  # threads that may write to one file; more would wait for each other

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)


class Buffers:
    """A thread's reusable buffers: one for the chunk it hands out, one for rows on the way."""

    def __init__(self) -> None:
        self.chunk = memoryview(bytearray(CHUNK))
        self._rows = bytearray()

    def rows(self, size: int) -> memoryview:
        """A buffer of `size` bytes for rows."""
        if len(self._rows) < size:
            self._rows = bytearray(size)
        return memoryview(self._rows)[:size]


def stream(view: View, buffers: Buffers) -> Iterator[memoryview]:
    """The view's bytes in order (row after row), in chunks of at most `CHUNK` bytes.

    A chunk is valid until the next one is asked for.
    """
    left = view.nbytes
    filled = 0
    for piece in _pieces(view, buffers):
        position = 0
        while position < piece.size:
            if not filled:
                out = buffers.chunk[: min(CHUNK, left)]
            size = min(piece.size - position, len(out) - filled)
            piece.fill(out[filled : filled + size], position)
            position += size
            filled += size
            if filled == len(out):
                left -= filled
                filled = 0
                yield out


@dataclass(slots=True)
class _Piece:
    """`size` bytes to come next; `fill(buffer, position)` gets those from `position` on."""

    size: int
    fill: Callable[[memoryview, int], None]


def _pieces(view: View, buffers: Buffers) -> Iterator[_Piece]:
    for band in _bands(view):
        patch = band[0]
        if len(band) == 1 and patch.width == view.row_bytes == patch.pitch:

            def read(buffer: memoryview, position: int, patch: Patch = patch) -> None:
                patch.source.read_into(buffer, patch.start + position)

            yield _Piece(patch.rows * patch.width, read)
            continue
        for rows in _gathered(band, view.row_bytes, buffers):

            def copy(buffer: memoryview, position: int, rows: memoryview = rows) -> None:
                buffer[:] = rows[position : position + len(buffer)]

            yield _Piece(len(rows), copy)


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
    """Write every target's bytes to its place; up to `workers` threads at a time.

    The kernel lets one thread at a time write to a file. So threads keep to files of their own
    while there are enough; then two share a file, one of them reading and checksumming while
    the other writes. On the first error the others stop and it is raised (a full disk: as
    UserError).
    """
    total = sum(target.view.nbytes for target in targets)
    agenda = _Agenda(targets)
    tasks = [agenda.work] * min(workers, len(targets))
    run_all(tasks, total, workers=len(tasks), progress=progress)


class _Agenda:
    """What is still to be written, by file; threads take it from here target by target."""

    def __init__(self, targets: Sequence[Target]):
        self._left: dict[int, deque[Target]] = {}
        for target in targets:
            self._left.setdefault(target.fd, deque()).append(target)
        self._threads = dict.fromkeys(self._left, 0)
        self._lock = threading.Lock()

    def work(self, buffers: Buffers) -> Iterator[int]:
        """A task for `run_all`: write targets until there are none left to take."""
        target = self._next()
        while target:
            yield from _write(target, buffers)
            target = self._next(target)

    def _next(self, done: Target | None = None) -> Target | None:
        """The first target of the file that the fewest threads write to, once `done` is done."""
        with self._lock:
            if done:
                self._threads[done.fd] -= 1
            files = [fd for fd, left in self._left.items() if left]
            fd = min(files, key=self._threads.__getitem__, default=None)
            if fd is None or self._threads[fd] == TOGETHER:
                return None
            self._threads[fd] += 1
            return self._left[fd].popleft()


def _write(target: Target, buffers: Buffers) -> Iterator[int]:
    """Write a target, yielding the number of bytes of each chunk; sets its checksum."""
    offset, crc = target.offset, 0
    for chunk in stream(target.view, buffers):
        if target.want_crc:
            crc = crc32(chunk, crc)
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
