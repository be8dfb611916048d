"""A job as a process: told to stop it tidies up, and it does not outlive its Snakemake."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import psutil

# The process id of the Snakemake that starts jobs, put there by rules/common.smk.
SNAKEMAKE = "MINDTUNE_SNAKEMAKE"
SECONDS_BETWEEN_LOOKS = 0.5


class Stopped(KeyboardInterrupt):
    """SIGTERM has come. It unwinds like Ctrl-C, so that whatever tidies up after one does."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped in the main thread when SIGTERM comes; a second one ends the process."""
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a helper forked from here has nothing to tidy up
            os._exit(128 + number)
        signal.signal(number, signal.SIG_DFL)
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_with_snakemake() -> None:
    """Send this process SIGTERM when the Snakemake that started it is gone.

    A SIGKILL to Snakemake alone leaves its jobs running, and the next command would start them
    a second time. PR_SET_PDEATHSIG is of no use here: it is Linux's only, and there may be a
    shell between the two. On a cluster it is the Snakemake of the job's own step that is
    watched. What is no ancestor (another machine's, another container's) is not watched.
    """
    snakemake = _ancestor(int(os.environ.get(SNAKEMAKE, 0)))
    if snakemake is not None:
        threading.Thread(target=_watch, args=(snakemake,), daemon=True).start()


@contextmanager
def needed_by_all() -> Iterator[None]:
    """Should the block fail, let the Snakemake that started this job start no other.

    With `keep-going` it would go on with what doesn't depend on this, such as hours of
    fetching for a machine that can't use it. As at SIGTERM, what runs already ends by itself.
    """
    try:
        yield
    except BaseException:
        snakemake = _ancestor(int(os.environ.get(SNAKEMAKE, 0)))
        if snakemake is not None:
            snakemake.terminate()
        raise


def _ancestor(pid: int) -> psutil.Process | None:
    try:
        return next((one for one in psutil.Process().parents() if one.pid == pid), None)
    except psutil.Error:
        return None


def _watch(process: psutil.Process) -> None:
    while _runs(process):
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)


def is_alive(pid: int) -> bool:
    """Whether a process of this machine still runs: a zombie does not."""
    try:
        return _runs(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
