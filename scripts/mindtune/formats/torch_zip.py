"""Writing torch's zip format with the bytes to come later, and reading its directory.

A file of `torch.save` (format version 3, since torch 1.6) is a zip archive without
compression. Its records: `<name>/data.pkl` (the object, tensors as references),
`<name>/byteorder` ("little"), `<name>/data/<key>` (a storage's bytes, aligned to 64) and
`<name>/version` ("3\\n"). Source: caffe2/serialize/inline_container.cc and
torch/serialization.py of torch 2.1 to 2.13; zip itself: PKWARE's APPNOTE.TXT.

All sizes are known beforehand, so `Archive` lays the whole file out first; the storages are
then written to their places in any order, and the headers, which hold their checksums, last.
A file that was not finished therefore has no directory and cannot be opened.
Equal content gives equal bytes: timestamps are those of zip's epoch, 1980-01-01.
"""

import struct
import zipfile
from dataclasses import dataclass

from mindtune.errors import UserError
from mindtune.formats.checksum import crc32
from mindtune.formats.pickle_writer import pickle_tree
from mindtune.formats.sources import FileSource, RecordSource
from mindtune.formats.streaming import Target, pwrite
from mindtune.formats.unpickle import Storage, StoredTensor, unpickle
from mindtune.formats.views import ITEM_BYTES, View, stored

ALIGNMENT = 64
_BIG = 0xFFFFFFFF
_DATE = (1 << 5) | 1  # 1980-01-01
_LARGEST_PICKLE = 1 << 28


@dataclass(slots=True)
class _Record:
    name: str
    header: int  # offset of the local header
    start: int  # offset of the bytes
    size: int
    crc: int = 0
    target: Target | None = None


class Archive:
    """The layout of one torch file holding `tree`: containers and scalars, leaves may be views."""

    def __init__(self, tree: object, name: str = "model_optim_rng"):
        self._name = name
        self._records: list[_Record] = []
        self._small: list[tuple[_Record, bytes]] = []
        self._end = 0
        data, views = pickle_tree(tree)
        self._add_small("data.pkl", data)
        self._add_small("byteorder", b"little")
        self._views = [(self._add(f"data/{n}", view.nbytes), view) for n, view in enumerate(views)]
        self._add_small("version", b"3\n")
        self.size = self._end + len(self._directory())

    def _add(self, name: str, size: int) -> _Record:
        full = f"{self._name}/{name}"
        fixed = 30 + len(full.encode()) + (20 if size >= _BIG else 0)
        padding = -(self._end + fixed + 4) % ALIGNMENT
        record = _Record(full, self._end, self._end + fixed + 4 + padding, size)
        self._records.append(record)
        self._end = record.start + size
        return record

    def _add_small(self, name: str, data: bytes) -> None:
        record = self._add(name, len(data))
        record.crc = crc32(data)
        self._small.append((record, data))

    def targets(self, fd: int) -> list[Target]:
        """Where the views' bytes go in the file `fd`; write them, then call `finish`."""
        targets = []
        for record, view in self._views:
            record.target = Target(fd, record.start, view)
            targets.append(record.target)
        return targets

    def finish(self, fd: int) -> None:
        """Write all that is not a tensor: small records, headers, and last the directory."""
        for record, _ in self._views:
            record.crc = record.target.crc
        for record, data in self._small:
            pwrite(fd, data, record.start)
        for record in self._records:
            pwrite(fd, self._local_header(record), record.header)
        pwrite(fd, self._directory(), self._end)

    def _local_header(self, record: _Record) -> bytes:
        name = record.name.encode()
        extra = b""
        size = record.size
        if size >= _BIG:
            extra += struct.pack("<HHQQ", 1, 16, size, size)
            size = _BIG
        padding = record.start - record.header - 30 - len(name) - len(extra) - 4
        extra += struct.pack("<HH", 0x4246, padding) + b"Z" * padding  # torch's own padding field
        head = struct.pack(
            "<4sHHHHHIIIHH",
            b"PK\x03\x04",
            45 if record.size >= _BIG else 20,
            0,
            0,
            0,
            _DATE,
            record.crc,
            size,
            size,
            len(name),
            len(extra),
        )
        return head + name + extra

    def _directory(self) -> bytes:
        entries = b"".join(map(self._directory_entry, self._records))
        count, start, length = len(self._records), self._end, len(entries)
        zip64 = b""
        if start >= _BIG or count >= 0xFFFF:
            zip64 = struct.pack(
                "<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, start
            ) + struct.pack("<4sIQI", b"PK\x06\x07", 0, start + length, 1)
        end = struct.pack(
            "<4sHHHHIIH",
            b"PK\x05\x06",
            0,
            0,
            min(count, 0xFFFF),
            min(count, 0xFFFF),
            min(length, _BIG),
            min(start, _BIG),
            0,
        )
        return entries + zip64 + end

    @staticmethod
    def _directory_entry(record: _Record) -> bytes:
        name = record.name.encode()
        big_size, big_header = record.size >= _BIG, record.header >= _BIG
        values = [record.size] * 2 * big_size + [record.header] * big_header
        extra = struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values) if values else b""
        size = min(record.size, _BIG)
        version = 45 if values else 20
        return (
            struct.pack(
                "<4sHHHHHHIIIHHHHHII",
                b"PK\x01\x02",
                version,
                version,
                0,
                0,
                0,
                _DATE,
                record.crc,
                size,
                size,
                len(name),
                len(extra),
                0,
                0,
                0,
                0,
                min(record.header, _BIG),
            )
            + name
            + extra
        )


class TorchFile:
    """A torch file opened for reading: `tree` is its object, tensors being `StoredTensor`.

    Only plain containers and tensors are loaded; see `unpickle`. Tensors' bytes stay in the
    file until they are streamed. Raises UserError for anything that is not such a file.
    """

    def __init__(self, path: object):
        self.file = FileSource(path)
        self.path = self.file.path
        self._used: dict[str, RecordSource] = {}
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        try:
            with open(self.path, "rb") as handle, zipfile.ZipFile(handle) as archive:
                self._infos = {info.filename: info for info in archive.infolist()}
                if len(self._infos) != len(archive.infolist()):
                    raise UserError(f"{self.path} is damaged: its directory names a record twice")
                pickles = [name for name in self._infos if name.endswith("/data.pkl")]
                if len(pickles) != 1 or pickles[0].count("/") != 1:
                    raise UserError(f"{self.path} is not a file of torch.save: no data.pkl in it")
                self._prefix = pickles[0].removesuffix("data.pkl")
                order = self._infos.get(f"{self._prefix}byteorder")
                if order and archive.read(order).strip() != b"little":
                    raise UserError(f"{self.path} was written on a big-endian machine")
                if self._infos[pickles[0]].file_size > _LARGEST_PICKLE:
                    raise UserError(f"{self.path} is damaged: its pickle is larger than 256 MiB")
                data = archive.read(pickles[0])
        except UserError:
            raise
        except OSError as error:
            raise UserError(f"{self.path} cannot be read: {error}") from None
        except Exception as error:  # a damaged archive makes zipfile raise many kinds
            raise UserError(
                f"{self.path} is truncated, damaged or not a file of torch.save ({error})"
            ) from None
        self.tree = unpickle(data, str(self.path))

    def view(self, tensor: StoredTensor, name: str) -> View:
        """A tensor of the tree as a view on this file; `name` is its name in messages."""
        storage = tensor.storage
        item = ITEM_BYTES[storage.dtype]
        record = self._record(storage)
        shape, strides = tensor.shape, tensor.strides
        dense = 1
        for n, stride in zip(reversed(shape[1:]), reversed(strides[1:]), strict=True):
            if stride != dense and n > 1:
                raise UserError(
                    f"{self.path}: {name} is stored with strides {list(strides)}, "
                    "which is neither whole rows nor ranges of columns"
                )
            dense *= n
        rows = shape[0] if shape else 1
        pitch = strides[0] if shape and rows > 1 else dense
        if pitch < dense:
            raise UserError(f"{self.path}: {name} is stored with overlapping rows")
        used = tensor.offset + (rows - 1) * pitch + dense if rows and dense else 0
        if used > storage.count:
            raise UserError(
                f"{self.path} is damaged: {name} needs {used} elements of "
                f"a storage of {storage.count}"
            )
        return stored(record, tensor.offset * item, shape, storage.dtype, pitch * item)

    def _record(self, storage: Storage) -> RecordSource:
        name = f"{self._prefix}data/{storage.key}"
        wanted = storage.count * ITEM_BYTES[storage.dtype]
        if name in self._used:
            if self._used[name].size != wanted:
                raise UserError(f"{self.path} is damaged: {name} is used with two sizes")
            return self._used[name]
        info = self._infos.get(name)
        if info is None:
            raise UserError(f"{self.path} is damaged: it lacks the record {name}")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise UserError(f"{self.path}: the record {name} is compressed, which torch never does")
        if info.file_size != wanted or info.compress_size != wanted:
            raise UserError(
                f"{self.path} is damaged: {name} has {info.file_size} bytes, {wanted} are needed"
            )
        start = self._start(info)
        if start + wanted > self.file.size:
            raise UserError(f"{self.path} is truncated: {name} would end beyond the file")
        self._used[name] = RecordSource(self.file, name, start, wanted, info.CRC)
        return self._used[name]

    def _start(self, info: zipfile.ZipInfo) -> int:
        head = memoryview(bytearray(30))
        self.file.read_into(head, info.header_offset)
        magic, name_length, extra_length = struct.unpack("<4s22xHH", head)
        raw_name = info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
        name = memoryview(bytearray(name_length))
        if magic == b"PK\x03\x04":
            self.file.read_into(name, info.header_offset + 30)
        if magic != b"PK\x03\x04" or bytes(name) != raw_name:
            raise UserError(
                f"{self.path} is damaged: no header of {info.filename} where it should be"
            )
        return info.header_offset + 30 + name_length + extra_length

    def check(self) -> None:
        """Compare the checksums of all records of which something was read (see `RecordSource`)."""
        for record in self._used.values():
            record.check()

    def close(self) -> None:
        """Close the file; views on it can no longer be read."""
        self.file.close()
