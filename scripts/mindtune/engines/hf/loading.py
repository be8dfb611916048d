"""Pictures are decoded and cut into patches in processes of their own, ahead of the model."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch.utils.data import DataLoader, Dataset

from mindtune.engines.hf.processing import Picture, Processor
from mindtune.errors import UserError

MOST_LOADERS = 8


def loader_processes(threads: int, devices: int = 1) -> int:
    """As many as this process has cores to spare beside its threads, at least one.

    devices: processes that share the cores.

    The order of samples does not depend on it: torch's loader hands batches out in their order.
    """
    known = hasattr(os, "sched_getaffinity")  # not on macOS
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    return min(MOST_LOADERS, max(1, cores // devices - threads))


def batches_ahead(loaders: int) -> int:
    """Batches that each loader has ready: a packed one of photographs takes more than 100 MB."""
    return 2 if loaders == 1 else 1


def own_words(error: UserError) -> str:
    """An error's sentence, without the traceback that torch wraps it in on its way from a loader."""
    return str(error).rsplit("UserError: ", 1)[-1].strip()


class Pictures(Dataset):
    """Pictures of a directory by their names, as the vision encoder takes them."""

    def __init__(self, images: Path, names: Sequence[str], processor: Processor) -> None:
        self.images, self.names, self.processor = images, names, processor

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Picture:
        return self.processor.picture(self.processor.open_image(self.images / self.names[index]))


def pictures_ahead(pictures: Pictures, threads: int) -> Iterator[Picture]:
    """The pictures in their order, prepared beside what is done with them.

    Raises
    ------
    UserError: one can't be used.
    """
    loaders = loader_processes(threads)
    try:
        yield from DataLoader(pictures, batch_size=None, num_workers=loaders, prefetch_factor=4)
    except UserError as error:
        raise UserError(own_words(error)) from None
