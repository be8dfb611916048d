"""A file that arrives in pieces, and the journal of what is there.

The journal has a line for each chunk that was written: where it begins, its length and its
CRC-32. What a killed run fetched is so known to the chunk; and a chunk that a power cut kept
from the disk is recognised by its checksum and fetched again, without syncing each of them.
"""

import hashlib
import json
import os
import threading
import zlib
from bisect import bisect
from collections.abc import Iterator, Mapping
from pathlib import Path

from mindtune.files import sync_directory
from mindtune.progress import Progress

CHUNK = 1 << 18
READ = 1 << 22


class PartFile:
    """The part file at `.NAME.part`, with its journal beside it.

    Parameters
    ----------
    target: the path of the finished file. size: its bytes.
    identity: what must be the same for an earlier run's part to be gone on with.
    """

    def __init__(self, target: Path, size: int, identity: Mapping) -> None:
        self.path = target.with_name(f".{target.name}.part")
        self.journal_path = target.with_name(f".{target.name}.part.journal")
        self.size = size
        self.header = {"size": size, **identity}
        self.begins: list[int] = []  # extents that are there, in order, none touching another
        self.ends: list[int] = []
        self.sum = hashlib.sha256()
        self.summed = 0
        self.changed = threading.Condition()
        found = self._recover()
        self.handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self.handle, size)
        self.journal = open(self.journal_path, "w", encoding="utf-8")  # noqa: SIM115
        self._log(json.dumps(self.header), *(f"{a} {n} {crc}" for a, n, crc in found))

    def __enter__(self) -> "PartFile":
        return self

    def __exit__(self, *exception) -> None:
        self.journal.close()
        os.close(self.handle)

    @property
    def present(self) -> int:
        """Bytes that are there."""
        return sum(self.ends) - sum(self.begins)

    def _recover(self) -> list[tuple[int, int, int]]:
        """Check what an earlier run left, chunk by chunk, and hash its beginning meanwhile."""
        try:
            lines = self.journal_path.read_text(encoding="utf-8").splitlines()
            if not lines or json.loads(lines[0]) != self.header:
                raise ValueError
            with open(self.path, "rb") as handle:
                bytes_there = self.path.stat().st_size if len(lines) > 1 else 0
                with Progress(f"checking {self.path.name}", "B", bytes_there) as shown:
                    return list(self._sound_chunks(handle, lines[1:], shown))
        except (FileNotFoundError, ValueError):
            self.path.unlink(missing_ok=True)
            return []

    def _sound_chunks(
        self, handle, lines: list[str], shown: Progress
    ) -> Iterator[tuple[int, int, int]]:
        chunks = []
        for line in lines:
            fields = line.split()
            if len(fields) == 3:  # the last line may be cut off
                chunks.append(tuple(map(int, fields)))
        end = 0
        for begin, length, crc in sorted(chunks):
            if begin < end or begin + length > self.size:
                continue
            handle.seek(begin)
            data = handle.read(length)
            shown.advance(length)
            if len(data) == length and zlib.crc32(data) == crc:
                if begin == self.summed:
                    self.sum.update(data)
                    self.summed += length
                self._add(begin, begin + length)
                end = begin + length
                yield begin, length, crc

    def gaps(self, begin: int, end: int) -> list[tuple[int, int]]:
        """What is missing between two positions."""
        with self.changed:
            extents = [
                (a, b) for a, b in zip(self.begins, self.ends, strict=True) if b > begin and a < end
            ]
        found = []
        for a, b in extents:
            if a > begin:
                found.append((begin, a))
            begin = b
        if begin < end:
            found.append((begin, end))
        return found

    def write(self, begin: int, data: bytes | memoryview) -> None:
        """Put a chunk that has arrived in its place."""
        done = 0
        while done < len(data):
            done += os.pwrite(self.handle, data[done:], begin + done)
        with self.changed:
            self._log(f"{begin} {len(data)} {zlib.crc32(data)}")
            self._add(begin, begin + len(data))
            self.changed.notify_all()

    def _log(self, *lines: str) -> None:
        self.journal.write("".join(f"{line}\n" for line in lines))
        self.journal.flush()

    def _add(self, begin: int, end: int) -> None:
        first = bisect(self.ends, begin - 1)
        last = bisect(self.begins, end)
        if first < last:
            begin, end = min(begin, self.begins[first]), max(end, self.ends[last - 1])
        self.begins[first:last], self.ends[first:last] = [begin], [end]

    def hash_along(self, stop: threading.Event) -> None:
        """Hash what is there from the beginning on, as it grows; a thread of its own does it."""
        while self.summed < self.size and not stop.is_set():
            with self.changed:
                end = self.ends[0] if self.begins[:1] == [0] else 0
                if end <= self.summed:
                    self.changed.wait(0.2)
                    continue
            data = os.pread(self.handle, min(READ, end - self.summed), self.summed)
            self.sum.update(data)
            self.summed += len(data)

    def finish(self) -> str:
        """The SHA-256 of the whole file, which is on disk then."""
        self.hash_along(threading.Event())
        os.fsync(self.handle)
        return self.sum.hexdigest()

    def rename(self, path: Path) -> None:
        """Give the file another name, and forget the journal."""
        self.path.replace(path)
        sync_directory(path.parent)
        self.journal_path.unlink(missing_ok=True)
