"""Pictures by name, in a directory or in a zip file that is used as it is."""

import io
import os
import stat
from collections.abc import Iterator
from errno import EISDIR, ENAMETOOLONG, ENOTDIR, ENXIO
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from mindtune.data.archive import open_archive
from mindtune.data.headers import HEAD, TAIL
from mindtune.errors import UserError

MISSING, NO_PICTURE, EMPTY, NO_FILE = (
    "the image is missing",
    "the file is not a picture",
    "the file is empty",
    "it is not a file, but a directory, a pipe or a device",
)


NO_NAME = (ENOTDIR, ENAMETOOLONG)


class Glance(NamedTuple):
    """The first HEAD and last TAIL bytes of a picture (None: unknown), its size with time or checksum."""

    head: bytes
    tail: bytes | None
    stamp: tuple[int, int]


class Pictures(Protocol):
    """Where pictures are."""

    path: Path

    def glance(self, name: str) -> Glance | str:
        """A picture's first and last bytes; a text says why there are none."""

    def stamp(self, name: str) -> tuple[int, int] | None:
        """Size and time stamp (or checksum) of a picture; None when there is none of the name."""

    def source(self, name: str) -> Path | IO[bytes]:
        """What Pillow can open."""

    def names(self) -> Iterator[str]:
        """The names of all files, at any depth."""


class Directory:
    """Pictures that are files of a directory."""

    def __init__(self, path: Path) -> None:
        # Names are looked up from the open directory: a shorter way, 81,000 times.
        self.path = path
        self.handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)

    def glance(self, name: str) -> Glance | str:
        try:
            # A pipe would be waited for until somebody writes to it.
            handle = os.open(name, os.O_RDONLY | os.O_NONBLOCK, dir_fd=self.handle)
        except FileNotFoundError:
            return MISSING
        except OSError as error:
            return (
                MISSING
                if error.errno in NO_NAME
                else NO_FILE
                if error.errno == ENXIO
                else NO_PICTURE
            )
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                return NO_FILE
            size = status.st_size
            head = os.read(handle, HEAD)
            tail = head[-TAIL:] if size <= HEAD else os.pread(handle, TAIL, size - TAIL)
        except OSError:
            return NO_PICTURE
        finally:
            os.close(handle)
        return Glance(head, tail, (size, status.st_mtime_ns)) if head else EMPTY

    def stamp(self, name: str) -> tuple[int, int] | None:
        try:
            status = os.stat(name, dir_fd=self.handle)
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns

    def source(self, name: str) -> Path:
        return self.path / name

    def names(self) -> Iterator[str]:
        for place, _, files in os.walk(self.path):
            for name in files:
                yield os.path.relpath(os.path.join(place, name), self.path)  # noqa: PTH118


class Zip:
    """Pictures that are members of a zip file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.archive = open_archive(path)

    def glance(self, name: str) -> Glance | str:
        member = self.archive.members.get(name)
        if member is None:
            return MISSING
        if not member.size:
            return EMPTY
        return Glance(
            self.archive.head(name, HEAD), self.archive.tail(name, TAIL), (member.size, member.crc)
        )

    def stamp(self, name: str) -> tuple[int, int] | None:
        member = self.archive.members.get(name)
        return None if member is None else (member.size, member.crc)

    def source(self, name: str) -> IO[bytes]:
        return io.BytesIO(self.archive.read(name))

    def names(self) -> Iterator[str]:
        return iter(self.archive.members)


def open_pictures(path: str | Path) -> Pictures:
    """The pictures in a directory or a zip file."""
    path = Path(path)
    if path.is_file():
        return Zip(path)
    try:
        return Directory(path)
    except OSError as error:
        raise UserError(f"{path} is not a directory of pictures.") from error


def picture_file(path: str | Path) -> Path | io.BytesIO:
    """What to open for the picture at a path, of which a zip file may be a part.

    Raises
    ------
    FileNotFoundError: there is no such picture. IsADirectoryError: it is none of the things that can
    be read to their end. UserError: a damaged zip.
    """
    path = Path(path)
    archive = _archive_above(path.parent)
    if archive is None:
        if not stat.S_ISREG(path.stat().st_mode):
            raise IsADirectoryError(EISDIR, NO_FILE, str(path))
        return path
    try:
        return io.BytesIO(open_archive(archive).read(path.relative_to(archive).as_posix()))
    except KeyError:
        raise FileNotFoundError(f"{archive} has no member {path.relative_to(archive)}") from None


def has_picture(path: str | Path) -> bool:
    """Whether there is a picture at a path, of which a zip file may be a part."""
    path = Path(path)
    archive = _archive_above(path.parent)
    if archive is None:
        return path.is_file()
    return path.relative_to(archive).as_posix() in open_archive(archive).members


@lru_cache(maxsize=1024)
def _archive_above(place: Path) -> Path | None:
    for ancestor in (place, *place.parents):
        if ancestor.is_dir():
            return None
        if ancestor.is_file():
            return ancestor
    return None
