"""Facts about a machine, each gathered by one small function."""

import os
import resource
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10")


def nearest(path: Path) -> Path:
    """The path, or the nearest directory above it that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def free_bytes(path: Path) -> int:
    """Free space where a path is, or would be."""
    return shutil.disk_usage(nearest(path)).free


def file_system(path: Path) -> int:
    """Which file system a path is on, or would be."""
    return nearest(path).stat().st_dev


def write_error(path: Path) -> str | None:
    """Why nothing can be written at a path, tried on the nearest directory; None if it can."""
    try:
        with tempfile.TemporaryFile(dir=nearest(path)):
            return None
    except OSError as error:
        return error.strerror


def shared_memory() -> int | None:
    """Free bytes of /dev/shm; None where there is none."""
    try:
        return shutil.disk_usage("/dev/shm").free  # noqa: S108
    except OSError:
        return None


def port_error(port: int) -> str | None:
    """Why nothing can listen at a port of this node; None if it can."""
    try:
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("", port))
    except OSError as error:
        return error.strerror
    return None


def host_error(host: str) -> str | None:
    """Why a node can't be reached by ssh without a question; None if it can."""
    try:
        done = subprocess.run(  # noqa: S603
            [*SSH, host, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False, timeout=30,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "no answer within 30 s"
    except OSError as error:
        return f"ssh: {error.strerror}"
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]


def open_files() -> int:
    """How many files a process may hold open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def under_slurm() -> bool:
    """Whether Slurm is there, inside a job or to submit one."""
    return "SLURM_JOB_ID" in os.environ or shutil.which("sbatch") is not None


def in_pods() -> bool:
    """Whether torchrun's variables say where the nodes of a training meet."""
    return bool(os.environ.get("MASTER_ADDR"))
