"""Members of a zip file, read where they lie.

zipfile reads the table of contents; members are then read by position, so that threads and
forked processes can share an archive, and a member costs one system call.
"""

import os
import stat
import struct
import threading
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from mindtune.errors import UserError

LOCAL_HEADER = struct.Struct("<4s5H3L2H")
EXTRA_SPACE = 128
ENCRYPTED = 1


class Member(NamedTuple):
    """A file in a zip: its whole name, where its header is, its sizes, CRC-32 and method."""

    name: str
    offset: int
    packed: int
    size: int
    crc: int
    deflated: bool


class Archive:
    """A zip file of pictures, addressed by their names below the directory they share.

    Raises
    ------
    UserError: no zip, cut off, a member that can't be unpacked safely, or two of one name.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with ZipFile(self.path) as opened:
                infos = [info for info in opened.infolist() if not info.is_dir()]
        except (BadZipFile, NotImplementedError, EOFError, struct.error) as error:
            raise UserError(
                f"{self.path} is no whole zip file ({_words(error)}); get it again."
            ) from error
        except OSError as error:
            raise UserError(f"{self.path} can't be read: {error.strerror or error}.") from error
        members = [_member(self.path, info) for info in infos]
        self.root = _shared_directory([member.name for member in members])
        self.members = {member.name[len(self.root) :]: member for member in members}
        if len(self.members) < len(members):
            raise UserError(
                f"{self.path} has {len(members) - len(self.members)} members whose names other "
                "members have too; get it again."
            )
        self.handle = os.open(self.path, os.O_RDONLY)

    def __len__(self) -> int:
        return len(self.members)

    def close(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            self.close()

    def read(self, name: str) -> bytes:
        """The content of a member. KeyError: there is none of the name."""
        member = self.members[name]
        data = self._packed(member, member.packed)
        if member.deflated:
            try:
                data = zlib.decompress(data, wbits=-zlib.MAX_WBITS, bufsize=member.size or 1)
            except zlib.error as error:
                raise self._damaged(member, str(error)) from error
        if len(data) != member.size:
            raise self._damaged(member, f"it has {len(data)} bytes and not {member.size}")
        if zlib.crc32(data) != member.crc:
            raise self._damaged(member, "its checksum is wrong")
        return data

    def head(self, name: str, count: int) -> bytes:
        """The first bytes of a member, unchecked."""
        member = self.members[name]
        if not member.deflated:
            return self._packed(member, min(count, member.packed))
        try:
            packed = self._packed(member, min(member.packed, 1024))
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, count)
        except zlib.error:
            return b""

    def _packed(self, member: Member, count: int) -> bytes:
        # The table of contents doesn't tell the length of the header before the data.
        space = LOCAL_HEADER.size + len(member.name.encode()) + EXTRA_SPACE
        block = os.pread(self.handle, space + count, member.offset)
        if len(block) < LOCAL_HEADER.size or block[:4] != b"PK\3\4":
            raise self._damaged(member, "its header is not where the table of contents says")
        *_, name_length, extra_length = LOCAL_HEADER.unpack_from(block)
        begin = LOCAL_HEADER.size + name_length + extra_length
        while len(block) < begin + count:
            more = os.pread(self.handle, begin + count - len(block), member.offset + len(block))
            if not more:
                raise self._damaged(member, "the file ends within it")
            block += more
        return block[begin : begin + count]

    def _damaged(self, member: Member, why: str) -> UserError:
        return UserError(f"{self.path}: {member.name} is damaged ({why}); get the zip file again.")


_lock = threading.Lock()


def open_archive(path: str | Path) -> Archive:
    """The archive at a path, its table of contents read once while the file is the same."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from error
    with _lock:
        return _opened(str(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _opened(path: str, mtime_ns: int, size: int) -> Archive:
    return Archive(path)


def _member(path: Path, info: ZipInfo) -> Member:
    name = info.filename
    # zipfile turns the backslashes of Windows into slashes on Windows only.
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
        raise UserError(
            f"{path}: the member {name!r} leads out of the directory it would be unpacked to; "
            "don't trust this file."
        )
    if stat.S_ISLNK(info.external_attr >> 16):
        raise UserError(
            f"{path}: the member {name!r} is a symbolic link, which is not followed; "
            "pack the files themselves."
        )
    if info.flag_bits & ENCRYPTED:
        raise UserError(f"{path}: the member {name!r} is encrypted; unpack it by hand.")
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise UserError(
            f"{path}: the member {name!r} is packed by method {info.compress_type}; only stored "
            "and deflated ones can be read: unpack it by hand."
        )
    deflated = info.compress_type == ZIP_DEFLATED
    return Member(name, info.header_offset, info.compress_size, info.file_size, info.CRC, deflated)


def _shared_directory(names: list[str]) -> str:
    """The directory, with its slash, in which all of the names are; empty when there is none."""
    shared: list[str] = []
    for number, parts in enumerate({tuple(name.split("/")[:-1]) for name in names}):
        if number == 0:
            shared = list(parts)
        same = [a == b for a, b in zip(shared, parts, strict=False)]
        shared = shared[: [*same, False].index(False)]
    return "".join(f"{part}/" for part in shared)


def _words(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text[0].lower() + text[1:]
