"""A job as a process: told to stop it tidies up, and it does not outlive its Snakemake."""

import os
import re
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
SECONDS_TO_TIDY_UP = 10.0
_KILLED = re.compile(r"killed by signal: ([A-Z][\w ]*)")
_allowed = SECONDS_TO_TIDY_UP


class Stopped(KeyboardInterrupt):
    """SIGTERM has come. It unwinds like Ctrl-C, so that whatever tidies up after one does."""


@contextmanager
def stoppable() -> Iterator[list[int]]:
    """Raise Stopped in the main thread when SIGTERM comes; a second one ends the process.

    Yields a list that gets the number of the signal, for where the exception is lost: one that is
    raised in a destructor is. From the signal on the process has `SECONDS_TO_TIDY_UP` to end, so
    that one that hangs holds no lock for ever; Ctrl-C gives it as long.
    """
    owner = os.getpid()
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a helper forked from here has nothing to tidy up
            os._exit(128 + number)
        signal.signal(number, signal.SIG_DFL)
        came.append(number)
        _end_at_last()
        raise Stopped

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            signal.signal(number, signal.default_int_handler)
            _end_at_last()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heeded:  # one that was started in the background may ignore it
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)
        if heeded:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_at_last() -> None:
    """Let the kernel end this process in a while, whatever it then waits for."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, _allowed)


@contextmanager
def slow_to_stop(seconds: float) -> Iterator[None]:
    """In the block, a process that is stopped may take so much longer to tidy up."""
    global _allowed
    _allowed += seconds
    try:
        yield
    finally:
        _allowed -= seconds


def named(number: int) -> str:
    """A signal in words; of SIGKILL, which says nothing by itself, why it came most likely."""
    why = ": memory ran out, most likely" if number == signal.SIGKILL else ""
    return f"signal {number} ({signal.Signals(number).name}{why})"


def ended(status: int) -> str:
    """How a program ended, in words: "ended with status 1", "was ended by signal 15 (SIGTERM)".

    status: as `subprocess` gives it, or 128 + a signal's number, as shells do.
    """
    number = -status if status < 0 else status - 128
    if number not in {int(one) for one in signal.Signals}:
        return f"ended with status {status}"
    return f"was ended by {named(number)}"


def signal_in(error: BaseException) -> int | None:
    """The signal that ended a helper process, by the words of the exception that tells of it.

    torch's are "DataLoader worker (pid 7) is killed by signal: Terminated." None for another one.
    """
    numbers = {signal.strsignal(one): int(one) for one in signal.Signals}
    seen: BaseException | None = error
    while seen is not None:
        match = _KILLED.search(str(seen))
        if match:
            return numbers.get(match[1].strip())
        seen = seen.__cause__ or seen.__context__
    return None


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
