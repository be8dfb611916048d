"""Writing files so that nothing half-written ever looks whole.

Everything here writes under a temporary name in the *same* directory as the
target (a rename is atomic only within one file system), flushes it to disk, and
renames it. A name that starts with a dot and ends in ``.partial`` is what a kill leaves
behind; the next writer of the same target removes it. Each writer has a name of its own, so
that one that outlived its run and the next one never write to the same file: the older one
finds its file gone and fails.
"""

import glob
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mindtune.errors import UserError

CHUNK = 1 << 20


def partial_name(path: Path) -> Path:
    """The temporary name of something that is made in several runs, with a lock on it."""
    return path.with_name(f".{path.name}.partial")


def _own_partial_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def discard_partials(path: Path) -> None:
    """Remove what killed writers of `path` left beside it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.partial"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Flush a directory's entries (names, renames) to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def writing(path: str | os.PathLike, mode: str = "w", **kwargs: Any) -> Iterator[Any]:
    """Open `path` for writing; it appears, whole, when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    discard_partials(path)
    partial = _own_partial_name(path)
    if "b" not in mode:
        kwargs.setdefault("encoding", "utf-8")
        kwargs.setdefault("newline", "\n")
    try:
        with open(partial, mode, **kwargs) as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        partial.replace(path)
        sync_directory(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def writing_directory(path: str | os.PathLike) -> Iterator[Path]:
    """Yield an empty directory to fill; it takes the name `path` when the block ends well.

    A directory that already has the name is replaced as the last step, so that a
    failure leaves it as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    discard_partials(path)
    partial = _own_partial_name(path)
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            shutil.rmtree(path)
        partial.replace(path)
        sync_directory(path.parent)
    finally:
        if partial.exists():
            shutil.rmtree(partial)


def regular(path: str | os.PathLike) -> Path:
    """`path`, where it is a file that can be read to its end.

    Opening a named pipe waits for ever, and a device may have no end, so every file that a user
    names, or that was found in a user's directory, passes here before it is opened.

    Raises
    ------
    UserError: there is nothing, or something of another kind.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from error
    if not stat.S_ISREG(mode):
        kinds = ((stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a named pipe"),
                 (stat.S_ISSOCK, "a socket"))  # fmt: skip
        kind = next((name for test, name in kinds if test(mode)), "a device")
        raise UserError(f"{path} is {kind}, but must be a file.")
    return path


def read_text(path: str | os.PathLike) -> str:
    """A UTF-8 file's text, without a byte order mark.

    Raises
    ------
    UserError: it isn't a file, can't be read, or isn't UTF-8.
    """
    try:
        return regular(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from error


def bytes_below(place: str | os.PathLike) -> int:
    """Bytes of all files below a directory, 0 where there is none.

    Links are not followed, and one to a file counts as a link; what vanishes meanwhile counts nothing.
    """
    total = 0
    for folder, _, names in os.walk(place):
        for name in names:
            with suppress(OSError):
                total += Path(folder, name).lstat().st_size
    return total


def read_json(path: str | os.PathLike) -> Any:
    """The value in a JSON file.

    Raises
    ------
    UserError: it can't be read, isn't JSON, or is nested too deeply.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 10,000 digits
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"{path} is not JSON: {reason}.") from error


def read_json_lines(path: str | os.PathLike) -> list[Any]:
    """The values of a file with one JSON value a line.

    Lines end with a line feed only: `str.splitlines` would also cut at U+2028, U+0085 and others,
    which JSON text may hold.
    """
    text = Path(path).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as indented JSON with a final newline; keys keep their order."""
    with writing(path) as handle:
        json.dump(value, handle, indent=2, ensure_ascii=False)
        handle.write("\n")


def sha256_file(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def link(target: str | os.PathLike, path: str | os.PathLike) -> None:
    """Make `path` a symbolic link to what is at `target`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(Path(target).resolve())
