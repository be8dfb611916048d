"""Saving beside training: tensors are copied to host memory, and a thread writes them.

The writer waits for the disk and computes checksums outside Python's lock, so that training goes on
meanwhile. What it writes is what the training was when the copies were taken.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import torch

log = logging.getLogger(__name__)

# A training that is stopped may finish what it writes if that takes no longer; a process has
# `mindtune.process.SECONDS_TO_TIDY_UP` in all.
SECONDS_TO_FINISH = 3.0
# Host memory that stays free: a share of what is copied, and so many bytes.
SPARE_SHARE, SPARE_BYTES = 0.1, 1 << 28
CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


class CalledOff(Exception):
    """A training was stopped, and what it wrote meanwhile takes too long."""


class Beside:
    """Does one thing at a time in a thread beside the training.

    A failure there is raised by the next method that is called. As a context manager around the
    training it waits at the end for what is still done, whether the training ended well or failed;
    after Ctrl-C or SIGTERM only for `SECONDS_TO_FINISH`.
    """

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, "beside")
        self.future: Future | None = None
        self.called_off = Event()

    def begin(self, work: Callable[[], None]) -> None:
        """Do `work` in the thread, once it has done what it does now."""
        self.wait()
        self.future = self.pool.submit(work)

    def look(self) -> None:
        """Raise what has failed, without waiting."""
        if self.future is not None and self.future.done():
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is done; raise what has failed."""
        future, self.future = self.future, None
        if future is not None:
            try:
                future.result()
            except BaseException:
                if not future.done():  # it is the waiting that was broken off
                    self.future = future
                raise

    def progress(self, done: int, total: int) -> None:
        """Called by a writer after each piece.

        Raises
        ------
        CalledOff: the training was stopped.
        """
        if self.called_off.is_set():
            raise CalledOff

    def __enter__(self) -> "Beside":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        try:
            if error is None or isinstance(error, Exception):
                self.wait()
            elif self.future is not None:
                done, _ = wait([self.future], SECONDS_TO_FINISH)
                for failed in filter(None, (future.exception() for future in done)):
                    log.warning("the newest checkpoint could not be saved: %s", failed)
        finally:
            self.called_off.set()
            self.pool.shutdown()


class HostCopies:
    """Copies of a training's tensors in host memory.

    For a CUDA device the memory is pinned, to which copying is some thirty times as fast. Getting
    such memory is slow, so it is got once, by `prepare`, and kept.
    """

    def __init__(self) -> None:
        self.kept: dict[tuple, torch.Tensor] = {}
        self.refused = False
        self.warned = False

    def fit(self, content: Any, device: torch.device) -> bool:
        """Whether the host has memory for copies of all tensors in `content`; else a warning, once."""
        if self.refused:
            return False
        pinned = device.type == "cuda"
        needed = sum(
            allocated(tensor, pinned)
            for place, tensor in tensors_in(content)
            if not _alike(self.kept.get(place), tensor)
        )
        wanted = int(needed * (1 + SPARE_SHARE)) + SPARE_BYTES if needed else 0
        free = free_memory()
        if wanted > free and not self.warned:
            log.warning(
                "copies of a checkpoint's tensors need %s bytes of host memory, but %s are free: "
                "training waits while a checkpoint is written",
                f"{wanted:,}", f"{free:,}",
            )  # fmt: skip
            self.warned = True
        return wanted <= free

    def ready(self, content: Any, device: torch.device) -> bool:
        """Whether `of` can be called: there is memory, got already where it is pinned."""
        if not self.fit(content, device):
            return False
        if device.type == "cuda":
            self.prepare(content)
        return not self.refused

    def prepare(self, content: Any) -> None:
        """Get pinned memory for copies of all tensors in `content`; `fit` says no where that fails."""
        try:
            for place, tensor in tensors_in(content):
                if not _alike(self.kept.get(place), tensor):
                    self.kept[place] = torch.empty(
                        tensor.shape, dtype=tensor.dtype, pin_memory=True
                    )
        except RuntimeError as error:
            log.warning(
                "no pinned memory (%s): training waits while a checkpoint is written", error
            )
            self.kept.clear()
            self.refused = True

    def of(self, content: Any, device: torch.device) -> Any:
        """The same containers with copies of all tensors, which no later step changes.

        For a CUDA device they are valid until the next call, and there are none yet of a tensor for
        which `prepare` was not called.
        """
        if device.type != "cuda":
            return changed(content, lambda _, tensor: tensor.detach().to("cpu", copy=True))
        copies = changed(
            content,
            lambda place, tensor: self.kept[place].copy_(tensor.detach(), non_blocking=True),
        )
        torch.cuda.synchronize(device)
        return copies


def free_memory(cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> int:
    """Bytes of memory that this process can still get, by the machine and by its control groups.

    Containers and batch systems set those; they are read in version 2 (Linux' cgroup-v2.rst). What
    is cached of files counts as free.
    """
    free = psutil.virtual_memory().available
    try:
        named = [line[3:] for line in own.read_text().split("\n") if line.startswith("0::/")]
    except OSError:
        return free
    for place in (cgroups / name.lstrip("/") for name in named):
        for group in (place, *place.parents):
            if group.is_relative_to(cgroups):
                free = min(free, _left(group, free))
    return free


def _left(group: Path, otherwise: int) -> int:
    """Bytes of memory left to a control group, `otherwise` where it has no limit."""
    try:
        limit, used = ((group / name).read_text() for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(limit) - int(used) + int(stat["inactive_file"])
    except (OSError, ValueError, KeyError):  # also "max"
        return otherwise


def allocated(tensor: torch.Tensor, pinned: bool) -> int:
    """Bytes that a copy takes; torch rounds pinned memory up to a power of two."""
    size = tensor.numel() * tensor.element_size()
    return 1 << (size - 1).bit_length() if pinned and size else size


def _alike(copy: torch.Tensor | None, tensor: torch.Tensor) -> bool:
    return copy is not None and (copy.shape, copy.dtype) == (tensor.shape, tensor.dtype)


def changed(
    value: Any, change: Callable[[tuple, torch.Tensor], torch.Tensor], place: tuple = ()
) -> Any:
    """The same containers, each tensor replaced by what `change` makes of its place and itself."""
    if isinstance(value, torch.Tensor):
        return change(place, value)
    if isinstance(value, Mapping):
        return {key: changed(item, change, (*place, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [changed(item, change, (*place, number)) for number, item in enumerate(value)]
    return value


def tensors_in(value: Any) -> Iterator[tuple[tuple, torch.Tensor]]:
    """(place, tensor) of all tensors in nested containers."""
    found: list[tuple[tuple, torch.Tensor]] = []

    def note(place: tuple, tensor: torch.Tensor) -> torch.Tensor:
        found.append((place, tensor))
        return tensor

    changed(value, note)
    return iter(found)
