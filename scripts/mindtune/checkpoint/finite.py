"""Looking for weights that are no numbers, of which a training makes nothing but more of them.

A conversion copies bytes, whatever they mean; this is for whoever trains or answers. It takes about a
tenth of a conversion's time.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mindtune.checkpoint.huggingface import HFCheckpoint
from mindtune.errors import UserError
from mindtune.formats.streaming import Buffers, run_all, stream
from mindtune.formats.views import View

# Type -> an unsigned one of its size, all bits but the sign's, and the least of infinity and NaN.
BITS = {
    "bfloat16": (np.uint16, 0x7FFF, 0x7F80),
    "float16": (np.uint16, 0x7FFF, 0x7C00),
    "float32": (np.uint32, 0x7FFFFFFF, 0x7F800000),
    "float64": (np.uint64, 0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000),
}


UNTRAINABLE = "nothing can be trained from it; download the file again"


def check_finite(hf_dir: str | Path, workers: int = 1, so: str = UNTRAINABLE) -> None:
    """
    so: the rest of the sentence: what follows from it, and what to do.

    Raises
    ------
    UserError: a tensor of a Hugging Face directory has a NaN or an infinite number.
    """
    with HFCheckpoint(hf_dir) as hf:
        tensors = {name: view for name, view in hf.tensors.items() if view.dtype in BITS}
        tasks = [_Look(name, view, hf, so) for name, view in tensors.items()]
        run_all(tasks, sum(view.nbytes for view in tensors.values()), workers=workers)


class _Look:
    """A task for `run_all`: one tensor, chunk by chunk."""

    def __init__(self, name: str, view: View, hf: HFCheckpoint, so: str):
        self.name, self.view, self.hf, self.so = name, view, hf, so

    def __call__(self, buffers: Buffers) -> Iterator[int]:
        unsigned, mask, least = BITS[self.view.dtype]
        done = 0
        for chunk in stream(self.view, buffers):
            magnitudes = np.frombuffer(chunk, unsigned) & unsigned(mask)
            if magnitudes.size and magnitudes.max() >= least:
                element = done + int((magnitudes >= least).argmax())
                raise UserError(
                    f"{self.hf.path / self.hf.files[self.name]}: element {element} of {self.name} is "
                    f"not a finite number, so {self.so}."
                )
            done += len(magnitudes)
            yield len(chunk)
