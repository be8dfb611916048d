"""Where the bytes of a tensor come from: files, checksummed records of files, memory.

Files are read with positioned reads into small buffers, not through memory maps: memory
stays the same whatever the file's size, several threads may read at once, and a file that
shrinks under us is an error message instead of a SIGBUS.
"""

import os
from pathlib import Path

from mindtune.errors import UserError
from mindtune.formats.checksum import crc32, crc32_combine

_STEP = 1 << 20


class FileSource:
    """A file opened for reading. Offsets count from its beginning; safe to share by threads."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        try:
            self._fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            self.size = os.fstat(self._fd).st_size
        except OSError as error:
            raise UserError(f"{self.path} cannot be read: {error.strerror}") from None

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from byte `offset` on; UserError if the file ends before."""
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._fd, [buffer[done:]], offset + done)
            except OSError as error:
                raise UserError(f"{self.path} cannot be read: {error.strerror}") from None
            if count == 0:
                end = offset + done
                raise UserError(
                    f"{self.path} is truncated: it ends at byte {end}, more was expected"
                )
            done += count

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RecordSource:
    """`size` bytes at `start` of a file, with the CRC-32 that they must have.

    Reads are checksummed as they happen, in whatever order they come; one that goes on where
    another ended goes on with its checksum. `check` joins the checksums of the runs of reads,
    reads what nobody has read, and compares. Of several reads of the same bytes one counts.
    """

    def __init__(self, file: FileSource, name: str, start: int, size: int, crc: int):
        self.file = file
        self.name = name
        self.start = start
        self.size = size
        self.crc = crc
        self._runs: dict[int, tuple[int, int]] = {}  # end -> (start, CRC-32)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from byte `offset` of the record on."""
        if offset < 0 or offset + len(buffer) > self.size:
            raise UserError(
                f"{self.file.path}: record {self.name} has {self.size} bytes, "
                f"but bytes {offset} to {offset + len(buffer)} are asked for"
            )
        self.file.read_into(buffer, self.start + offset)
        start, crc = self._runs.pop(offset, (offset, 0))
        self._runs[offset + len(buffer)] = (start, crc32(buffer, crc))

    def check(self) -> None:
        """Raise UserError if anything of the record was read and the record is damaged."""
        if not self._runs:
            return
        crc = position = 0
        for start, end, run_crc in sorted((s, end, crc) for end, (s, crc) in self._runs.items()):
            if end <= position:
                continue
            crc = self._crc_of_gap(crc, position, start)
            if start >= position:
                crc = crc32_combine(crc, run_crc, end - start)
            else:  # overlaps what is already counted
                crc = self._crc_of_gap(crc, position, end)
            position = end
        crc = self._crc_of_gap(crc, position, self.size)
        if crc != self.crc:
            raise UserError(
                f"{self.file.path} is damaged: record {self.name} has checksum {crc:08x}, "
                f"its directory says {self.crc:08x}"
            )

    def _crc_of_gap(self, crc: int, start: int, end: int) -> int:
        buffer = memoryview(bytearray(min(_STEP, max(end - start, 0))))
        while start < end:
            step = buffer[: min(len(buffer), end - start)]
            self.file.read_into(step, self.start + start)
            crc = crc32(step, crc)
            start += len(step)
        return crc


class MemorySource:
    """Bytes in memory (anything with the buffer interface)."""

    def __init__(self, data: object):
        self._data = memoryview(data).cast("B")

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from byte `offset` on."""
        part = self._data[offset : offset + len(buffer)]
        if len(part) != len(buffer):
            raise UserError(f"{len(buffer)} bytes at {offset} of {len(self._data)} are asked for")
        buffer[:] = part
