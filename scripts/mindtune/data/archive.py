"""Members of a zip file, read where they lie.

zipfile reads the table of contents; members are then read by position, so that threads and
forked processes can share an archive, and a member costs one system call.
"""

import os
import stat
import struct
import threading
import zlib
from collections import Counter
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from mindtune.errors import UserError
from mindtune.files import regular

LOCAL_HEADER = struct.Struct("<4s5H3L2H")
EXTRA_SPACE = 128
ENCRYPTED = 1
HEADER_LOST = "its header is not where the table of contents says"
# Deflate makes of one byte at most so many.
MOST_INFLATED = 1032
# Linux takes 255 bytes for a name, and 4,096 for a whole path.
LONGEST_PART, LONGEST_NAME, MOST_LEVELS = 255, 2048, 100


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
            with ZipFile(regular(self.path)) as opened:
                entries = opened.infolist()
        except (BadZipFile, NotImplementedError, EOFError, struct.error, ValueError) as error:
            raise UserError(
                f"{self.path} is no whole zip file ({_words(error)}); get it again."
            ) from error
        except OSError as error:
            raise UserError(f"{self.path} can't be read: {error.strerror or error}.") from error
        length = self.path.stat().st_size
        members = [_member(self.path, info, length) for info in entries if not info.is_dir()]
        directories = [_plain_name(self.path, info) for info in entries if info.is_dir()]
        _check_names(self.path, [member.name for member in members], directories)
        self.root = _shared_directory([member.name for member in members])
        self.members = {member.name[len(self.root) :]: member for member in members}
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
            data = self._inflated(member, data)
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
            # What can't be packed grows by less than this.
            packed = self._packed(member, min(member.packed, count + 1024))
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, count)
        except zlib.error:
            return b"?"

    def tail(self, name: str, count: int) -> bytes | None:
        """The last bytes of a member, unchecked; None for a deflated one, of which all is needed."""
        member = self.members[name]
        if member.deflated:
            return None
        begin = self._begin(member)
        return os.pread(self.handle, min(count, member.size), begin + max(0, member.size - count))

    def _inflated(self, member: Member, packed: bytes) -> bytes:
        """A member's content, of which no more is unpacked than it declares."""
        inflating = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = inflating.decompress(packed, max(1, member.size))
            more = not inflating.eof and inflating.decompress(inflating.unconsumed_tail, 1)
        except zlib.error as error:
            raise self._damaged(member, str(error)) from error
        except MemoryError as error:
            raise self._damaged(member, f"its {member.size} bytes don't fit into memory") from error
        if more or len(data) > member.size:
            raise self._damaged(member, f"it holds more than the {member.size} bytes it declares")
        if not inflating.eof:
            raise self._damaged(member, "it is cut off")
        return data

    def _begin(self, member: Member) -> int:
        """Where a member's data begin: the table of contents doesn't tell it."""
        block = os.pread(self.handle, LOCAL_HEADER.size, member.offset)
        if len(block) < LOCAL_HEADER.size or block[:4] != b"PK\3\4":
            raise self._damaged(member, HEADER_LOST)
        *_, name_length, extra_length = LOCAL_HEADER.unpack(block)
        return member.offset + LOCAL_HEADER.size + name_length + extra_length

    def _packed(self, member: Member, count: int) -> bytes:
        # The table of contents doesn't tell the length of the header before the data.
        space = LOCAL_HEADER.size + len(member.name.encode()) + EXTRA_SPACE
        block = os.pread(self.handle, space + count, member.offset)
        if len(block) < LOCAL_HEADER.size or block[:4] != b"PK\3\4":
            raise self._damaged(member, HEADER_LOST)
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


def _plain_name(path: Path, info: ZipInfo) -> str:
    """A member's name, without what means nothing in it: `a//b` and `./a/b` are `a/b`."""
    name = info.filename
    # zipfile turns the backslashes of Windows into slashes on Windows only.
    plain = PurePosixPath(name)
    parts = PurePosixPath(name.replace("\\", "/")) if "\\" in name else plain
    if parts.is_absolute() or ".." in parts.parts or ":" in "".join(parts.parts[:1]):
        raise UserError(
            f"{path}: the member {_short(name)} leads out of the directory it would be unpacked to; "
            "don't trust this file."
        )
    if not info.is_dir() and not plain.parts:
        raise UserError(f"{path}: the member {name!r} has no name; get it again.")
    longest = max((len(part.encode()) for part in plain.parts), default=0)
    if longest > LONGEST_PART or len(str(plain).encode()) > LONGEST_NAME:
        raise UserError(
            f"{path}: the name of the member {_short(name)} has {len(name.encode())} bytes, "
            f"{longest} of them for one file or directory, but may have {LONGEST_NAME} and "
            f"{LONGEST_PART}; pack the files under shorter names."
        )
    if len(plain.parts) > MOST_LEVELS:
        raise UserError(
            f"{path}: the member {_short(name)} lies {len(plain.parts) - 1} directories deep, of at "
            f"most {MOST_LEVELS}; pack the files less deeply."
        )
    return str(plain)


def _check_names(path: Path, names: list[str], directories: list[str]) -> None:
    """Refuse two members of one name, and a file that is a directory as well."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        others = f", and so have {len(twice) - 1} other names" if len(twice) > 1 else ""
        raise UserError(
            f"{path} has several members of the name {_short(twice[0])}{others}; only one of them "
            "could be used: pack the files again, each once."
        )
    above = {name.rsplit("/", 1)[0] for name in names if "/" in name}
    above |= {str(parent) for place in above for parent in PurePosixPath(place).parents}
    above |= set(directories)
    both = next((name for name in names if name in above), None)
    if both:
        raise UserError(
            f"{path} has a file and a directory of the name {_short(both)}, which can't both be "
            "unpacked; rename one of them."
        )


def _short(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:40]}…{name[-19:]}")


def _member(path: Path, info: ZipInfo, length: int) -> Member:
    """A file in a zip of `length` bytes."""
    name = info.filename
    plain = _plain_name(path, info)
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
    most = info.compress_size * (MOST_INFLATED if deflated else 1)
    if info.header_offset + info.compress_size > length or info.file_size > most:
        raise UserError(
            f"{path}: the member {name!r} declares {info.compress_size} packed and {info.file_size} "
            "unpacked bytes, which can't be; get the zip file again."
        )
    return Member(plain, info.header_offset, info.compress_size, info.file_size, info.CRC, deflated)


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
