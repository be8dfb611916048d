"""Moving the bytes that views describe: in chunks, by several threads, in constant memory."""

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mindtune.checkpoint.checksum import FAST, crc32
from mindtune.checkpoint.views import Patch, View
from mindtune.errors import UserError

CHUNK = 1 << 18  # bytes of each thread's buffer: small enough for a core's own cache

AHEAD = 8  # chunks that a thread may read before they are written

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)


class Buffers:
    """A thread's reusable buffers: one for the chunk it hands out, one for rows on the way."""

    def __init__(self) -> None:
        self._chunk = memoryview(bytearray(CHUNK))
        self._rows = bytearray()

    def next_chunk(self) -> memoryview:
        """The buffer for the next chunk; the chunk before is done with."""
        return self._chunk

    def rows(self, size: int) -> memoryview:
        """A buffer of `size` bytes for rows."""
        if len(self._rows) < size:
            self._rows = bytearray(size)
        return memoryview(self._rows)[:size]


class _Ring(Buffers):
    """Buffers for a thread that reads ahead: `AHEAD` chunks, each reused once it is released."""

    def __init__(self) -> None:
        super().__init__()
        self._chunks = [self._chunk, *(memoryview(bytearray(CHUNK)) for _ in range(AHEAD - 1))]
        self._free: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._next = 0
        self.stopped = False
        for _ in self._chunks:
            self._free.put(None)

    def next_chunk(self) -> memoryview:
        self._free.get()
        if self.stopped:
            raise _StoppedError
        self._next = (self._next + 1) % AHEAD
        return self._chunks[self._next]

    def release(self) -> None:
        """The oldest chunk handed out is done with."""
        self._free.put(None)


class _StoppedError(Exception):
    """The thread that reads ahead is no longer needed."""


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
                out = buffers.next_chunk()[: min(CHUNK, left)]
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

    One file is written by one thread, from front to back, for two writing to one file wait
    for each other in the kernel. Where there are more workers than files, each file has a
    second thread that reads and checksums ahead of the one that writes, unless checksums are
    so fast that handing chunks over would cost more. On the first error
    the others stop and it is raised (a full disk: as UserError).
    """
    by_file: dict[int, list[Target]] = {}
    for target in targets:
        by_file.setdefault(target.fd, []).append(target)
    total = sum(target.view.nbytes for target in targets)
    ahead = workers > len(by_file) and not FAST
    tasks = [_FileWriter(group, ahead) for group in by_file.values()]
    run_all(tasks, total, workers=min(workers, len(tasks)), progress=progress)


class _FileWriter:
    """A task for `run_all`: the targets of one file."""

    def __init__(self, targets: Sequence[Target], ahead: bool):
        self.targets = targets
        self.ahead = ahead

    def __call__(self, buffers: Buffers) -> Iterator[int]:
        chunks = _read_ahead(self._chunks) if self.ahead else self._chunks(buffers)
        with closing(chunks):
            for fd, chunk, offset in chunks:
                pwrite(fd, chunk, offset)
                yield len(chunk)

    def _chunks(self, buffers: Buffers) -> Generator[tuple[int, memoryview, int], None, None]:
        """(file, bytes, offset) of all that is to be written; sets the targets' checksums."""
        for target in self.targets:
            offset, crc = target.offset, 0
            for chunk in stream(target.view, buffers):
                if target.want_crc:
                    crc = crc32(chunk, crc)
                yield target.fd, chunk, offset
                offset += len(chunk)
            target.crc = crc


def _read_ahead(
    chunks: Callable[[Buffers], Iterator[tuple[int, memoryview, int]]],
) -> Generator[tuple[int, memoryview, int], None, None]:
    """The same items, made by a thread of their own up to `AHEAD` chunks in advance."""
    ring = _Ring()
    ready: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def produce() -> None:
        try:
            for item in chunks(ring):
                ready.put(item)
            ready.put(None)
        except _StoppedError:
            pass
        except BaseException as error:
            ready.put(error)

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
            ring.release()
    finally:
        ring.stopped = True
        ring.release()
        thread.join()


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
