"""Who works in a directory: what a killed Snakemake locked is unlocked, what a live one is not.

Snakemake's locks are files that a SIGKILL or a power cut leaves behind, and the next run must
not guess whose they are. So each Snakemake that reads the Snakefile also holds a shared lock of
the kernel's as long as it lives. Who gets that lock for itself alone knows that nobody else is
there. File systems may keep such locks per machine; therefore the file names the machines,
and nothing is unlocked when another one is among them.
"""

import fcntl
import json
import os
import pwd
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mindtune.errors import UserError
from mindtune.glue.locks import NoLocks, myself, told, try_lock
from mindtune.glue.script_runner import sentence
from mindtune.process import is_alive

NAME = "mindtune.lock"
# With less than this Snakemake can't even write down what it is about to do.
LEAST_BYTES = 1 << 20
# Held until this process ends: an open file that nobody closes.
_open: list[int] = []
# The handle while this process works `alone`; what it does there need not enter.
_by_myself: list[int] = []


def enter(state: Path) -> str | None:
    """Note that this process works here; returns a sentence when there is something to say.

    state: Snakemake's directory `.snakemake`; made if it is not there.

    Raises
    ------
    UserError: it can't be written, as Snakemake has to.
    """
    free = shutil.disk_usage(state.parent).free
    if free < LEAST_BYTES:
        raise UserError(
            f"the disk is full ({free} bytes are free in {state.parent.resolve()}); free some space "
            "and run the same command again."
        )
    if _by_myself:
        return None
    try:
        state.mkdir(exist_ok=True)
        check_writable([state, *(path for path in state.iterdir() if path.is_dir())])
        handle = os.open(state / NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        _open.append(handle)
        return _entered(handle, state / "locks")
    except NoLocks:
        return None
    except OSError as error:
        raise UserError(
            f"{error.filename or state} can't be written: {sentence(error) or error.strerror}"
        ) from error


@contextmanager
def alone(state: Path) -> Iterator[str | None]:
    """Work here with no Snakemake beside; one that starts waits. Yields what `enter` returns.

    Raises
    ------
    UserError: one is at work here, or may be on another machine.
    """
    state.mkdir(exist_ok=True)
    check_writable([state])
    handle, said = os.open(state / NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666), None
    with suppress(NoLocks):
        if not try_lock(handle):
            raise UserError(
                f"{_among_others(handle) or 'Snakemake is at work here.'} Nothing is changed; give the "
                "same command again when it has ended."
            )
        said = _alone(handle, state / "locks")
        os.write(handle, json.dumps(myself()).encode() + b"\n")
    if left := [path for path in (state / "locks").glob("*.lock") if path.is_file()]:
        raise UserError(
            f"{left[0]} is a lock of a Snakemake on another machine, or of one that was killed there. "
            "Nothing is changed; wait until it has ended, or remove its lock by `snakemake --unlock`."
        )
    _by_myself.append(handle)
    try:
        yield said
    finally:
        os.close(_by_myself.pop())


def check_writable(paths: Iterable[Path]) -> None:
    """
    Raises
    ------
    UserError: a file can't be written, or nothing can be made in a directory.
    """
    for path in paths:
        if not os.access(path, os.W_OK | os.X_OK if path.is_dir() else os.W_OK):
            raise UserError(_unwritable(path))


def below(place: Path, files: bool = False) -> Iterator[Path]:
    """A directory and all directories in it, and the files too if asked; links are not followed."""
    for directory, _, names in os.walk(place):
        yield Path(directory)
        if files:
            yield from (Path(directory, name) for name in names)


def _unwritable(path: Path) -> str:
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"{path} can't be written: the file system is read-only; use a checkout elsewhere."
    status = path.stat()
    return (
        f"{path} can't be written by {myself()['user']} (it is {_name(status.st_uid)}'s, mode "
        f"{stat.filemode(status.st_mode)}); use a checkout of your own, or have it made writable for "
        "you, with all that is in it."
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _entered(handle: int, locks: Path) -> str | None:
    said = _alone(handle, locks) if try_lock(handle) else _among_others(handle)
    os.write(handle, json.dumps(myself()).encode() + b"\n")
    fcntl.flock(handle, fcntl.LOCK_SH)
    return said


def _alone(handle: int, locks: Path) -> str | None:
    left = [path for path in locks.glob("*.lock") if path.is_file()]
    here = myself()["host"]
    if left and any(one["host"] != here for one in _known(handle)):
        return None
    for path in left:
        path.unlink()
    os.ftruncate(handle, 0)
    if not left:
        return None
    return (
        "An earlier run was killed: its lock is removed, and what it left half-done is made again."
    )


def _among_others(handle: int) -> str | None:
    here = myself()["host"]
    for one in _known(handle):
        if one["host"] == here and is_alive(one["pid"]):
            return (
                f"Snakemake is at work here already ({told(one)}); what it makes, no other can make "
                "until it has ended or is stopped."
            )
    return None


def _known(handle: int) -> Iterator[dict]:
    for line in os.pread(handle, 1 << 20, 0).splitlines():
        try:
            yield json.loads(line)
        except ValueError:  # cut off by a full disk
            yield {"host": "one that can't be read"}
