"""Unpacking a zip of pictures: safely, several files at a time, and going on after a stop."""

import logging
import os
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from mindtune.data.archive import Archive, Member
from mindtune.errors import UserError
from mindtune.files import sync_directory, write_json
from mindtune.progress import Progress

log = logging.getLogger(__name__)
BATCH = 64
LONGEST_PATH = 4095


def receipt_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.unpacked.json")


def unpack(source: Path, target: Path, *, pictures: int | None = None, threads: int = 2) -> int:
    """Unpack a zip to the directory `target`, which appears when it is whole.

    What a killed run left under the temporary name is kept where its checksum is right.

    Returns the number of files.

    Raises
    ------
    UserError: a zip that can't be trusted or is damaged, or not `pictures` files in it.
    """
    archive = Archive(source)
    count = len(archive)
    if pictures not in (None, count):
        raise UserError(
            f"{source} holds {count} files, but must hold {pictures}; get the whole zip file."
        )
    if not count:
        raise UserError(f"{source} holds no files.")
    if target.is_dir():
        found = sum(len(files) for _, _, files in os.walk(target)) - _own_files(target)
        if found == count:
            return count
        raise UserError(
            f"{target} is there, but holds {found} files and not the {count} of {source}; move "
            "it away to have it unpacked, or name it with `use: path`."
        )
    partial = target.with_name(f".{target.name}.partial")
    _check_lengths(archive, partial)
    partial.mkdir(parents=True, exist_ok=True)
    _check_space(archive, partial)
    for directory in {Path(name).parent for name in archive.members}:
        (partial / directory).mkdir(parents=True, exist_ok=True)
    with Progress(f"unpacking {source.name}", "files", count) as shown:
        _Unpacking(archive, partial, shown).run(threads)
    partial.replace(target)
    sync_directory(target.parent)
    write_json(receipt_path(target), {"from": source.name, "files": count})
    archive.close()
    return count


def _own_files(target: Path) -> int:
    """Snakemake's time stamp, which is not from the zip."""
    return (target / ".snakemake_timestamp").exists()


def _check_lengths(archive: Archive, partial: Path) -> None:
    """Paths that Linux can't open; `partial` is longer than what it becomes."""
    place = len(os.fsencode(partial.absolute())) + 1
    longest = max(archive.members, key=lambda name: len(name.encode()))
    if place + len(longest.encode()) > LONGEST_PATH:
        raise UserError(
            f"{archive.path}: a member with a name of {len(longest.encode())} bytes can't be unpacked "
            f"to {partial.parent}, as a path has at most {LONGEST_PATH}; choose a shorter "
            "sources.download.directory."
        )


def _check_space(archive: Archive, partial: Path) -> None:
    needed = sum(member.size for member in archive.members.values())
    there = sum(
        os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118
        for place, _, files in os.walk(partial)
        for name in files
    )
    status = os.statvfs(partial)
    free = status.f_bavail * status.f_frsize
    if needed - there > free:
        raise UserError(
            f"unpacking {archive.path} needs {(needed - there) / 1e9:.2f} GB in {partial.parent}, "
            f"but {free / 1e9:.2f} GB are free; free some space, or write `unpack: false` to read "
            "the pictures from the zip."
        )


class _Unpacking:
    def __init__(self, archive: Archive, partial: Path, shown: Progress) -> None:
        self.archive = archive
        self.partial = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
        self.fresh = next(partial.iterdir(), None) is None or not any(
            files for _, _, files in os.walk(partial)
        )
        self.shown = shown
        self.counting = threading.Lock()

    def run(self, threads: int) -> None:
        # In the order in which they lie in the zip, so that a disk reads straight on.
        items = sorted(self.archive.members.items(), key=lambda item: item[1].offset)
        names = iter(items)
        batches = iter(lambda: list(islice(names, BATCH)), [])
        try:
            with ThreadPoolExecutor(threads) as pool:
                for _ in pool.map(self._batch, batches):
                    pass
        finally:
            os.close(self.partial)

    def _batch(self, batch: list[tuple[str, Member]]) -> None:
        for name, member in batch:
            if self.fresh or not self._is_there(name, member):
                self._write(name, self.archive.read(name))
        with self.counting:
            self.shown.advance(len(batch))

    def _is_there(self, name: str, member: Member) -> bool:
        try:
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self.partial)
        except FileNotFoundError:
            return False
        with os.fdopen(handle, "rb") as file:
            return os.fstat(handle).st_size == member.size and zlib.crc32(file.read()) == member.crc

    def _write(self, name: str, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        handle = os.open(name, flags, 0o644, dir_fd=self.partial)
        try:
            done = 0
            while done < len(data):
                done += os.write(handle, data[done:])
        finally:
            os.close(handle)
