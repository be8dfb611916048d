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
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mindtune.errors import UserError
from mindtune.job import sentence
from mindtune.locks import NoLocks, myself, told, try_lock
from mindtune.process import is_alive

NAME = "mindtune.lock"
# Held until this process ends: an open file that nobody closes.
_open: list[int] = []


def enter(state: Path) -> str | None:
    """Note that this process works here; returns a sentence when there is something to say.

    state: Snakemake's directory `.snakemake`; made if it is not there.

    Raises
    ------
    UserError: it can't be written.
    """
    try:
        state.mkdir(exist_ok=True)
        handle = os.open(state / NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        _open.append(handle)
        return _entered(handle, state / "locks")
    except NoLocks:
        return None
    except OSError as error:
        raise UserError(
            f"{error.filename or state} can't be written: {sentence(error) or error.strerror}"
        ) from error


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
        with suppress(ValueError):  # cut off by a full disk
            yield json.loads(line)
