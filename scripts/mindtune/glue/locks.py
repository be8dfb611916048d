"""Lock files that name their holder; the kernel lets go of them when the holder ends.

On a file system without locks everything goes on as if nobody else were there: Snakemake's
own locks and the temporary names of `mindtune.files` remain.
"""

import errno
import fcntl
import getpass
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SECONDS_BETWEEN_TRIES = 0.1


class Held(Exception):
    """Another process holds the lock; the message names it."""


class NoLocks(Exception):
    """This file system has no locks."""


def myself() -> dict[str, str | int]:
    """This process as lock files name it."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    return {"pid": os.getpid(), "user": user, "host": socket.gethostname()}


def told(holder: dict) -> str:
    """A holder in words."""
    if not holder:
        return "another process"
    return f"process {holder['pid']} of {holder['user']} on {holder['host']}"


def try_lock(handle: int) -> bool:
    """Take the lock of an open file and return True, or False when somebody else has it.

    Raises
    ------
    NoLocks: it can't be taken here by anybody.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise NoLocks from error
        raise
    return True


@contextmanager
def held(path: Path, seconds: float, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file `path`; wait for another holder for at most `seconds`.

    waiting: is told once who the other is, before the wait.

    Raises
    ------
    Held: another process has it still.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with suppress(NoLocks):
            _wait(handle, seconds, waiting)
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(myself()).encode(), 0)
        yield
    finally:
        os.close(handle)


def _wait(handle: int, seconds: float, waiting: Callable[[str], None]) -> None:
    end, said = time.monotonic() + seconds, False
    while not try_lock(handle):
        if time.monotonic() >= end:
            raise Held(told(_holder(handle)))
        if not said:
            waiting(told(_holder(handle)))
            said = True
        time.sleep(SECONDS_BETWEEN_TRIES)


def _holder(handle: int) -> dict:
    try:
        return json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return {}
