"""Checkpoints of a training: Megatron's layout, and beside it all that an exact resume needs.

`save_dir/iter_0000050/mp_rank_00/model_optim_rng.pt` holds the model under MindSpeed-MM's
names, so that either engine can read it, or with `train.lora` the adapters alone. Its entry `hf_engine`
holds the optimizer, the fp32 weights when the model's are bfloat16, and the states of the random
generators.
"""

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch

from mindtune.checkpoint import save_trained
from mindtune.checkpoint.adapters import save_adapters
from mindtune.checkpoint.megatron import iteration_name, iterations, track
from mindtune.engines.hf.adapters import Adapters
from mindtune.engines.hf.beside import Beside, HostCopies, changed
from mindtune.engines.hf.device import DTYPES
from mindtune.engines.hf.replicas import Replicas
from mindtune.engines.hf.sharding import all_of, shares_layers
from mindtune.models.tensors import tensors_of

if TYPE_CHECKING:
    from mindtune.settings.sections.train import Train

log = logging.getLogger(__name__)

STATE = "hf_engine"
# In it: the generators of the replicas but the first.
OTHERS = "random_of_others"


class Checkpoints:
    """The checkpoints in a save_dir.

    config: content of config.json. precision: `fp32` or `bf16`, of the model's tensors in files.
    adapters: those of the model, where they are trained and not the model itself. replicas: of the
    copies that train together the first one writes.
    """

    def __init__(
        self,
        save_dir: Path,
        config: dict,
        precision: str,
        train: "Train",
        replicas: Replicas | None = None,
    ) -> None:
        self.save_dir = save_dir
        self.config = config
        self.dtype = DTYPES[precision]
        self.train = train
        self.replicas = replicas or Replicas()
        self.adapters: Adapters | None = None
        self.random: Mapping | None = None
        self.beside = Beside()
        self.copies = HostCopies()

    def newest(self) -> int:
        """The newest whole checkpoint's iteration, 0 for none; the tracker is brought up to it.

        A checkpoint gets its name when it is whole. The tracker is written after that, so
        it can lag behind by one when a kill falls between the two.
        """
        last = self.train.train_iters
        whole = (n for n in iterations(self.save_dir) if n <= last and self._file(n).is_file())
        newest = max(whole, default=0)
        if newest:
            track(self.save_dir, newest)
        return newest

    def _file(self, iteration: int) -> Path:
        return self.save_dir / iteration_name(iteration) / "mp_rank_00" / "model_optim_rng.pt"

    def prepare(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Get the memory into which tensors are copied, beside the training, where that is slow.

        To be called after the first step: an optimizer has no moments before.
        """
        writes = self.replicas.is_first and not shares_layers(model)
        if model.device.type == "cuda" and writes:
            content = self._content(model, optimizer, [random_states(model.device)])
            if self.copies.fit(content, model.device):
                self.beside.begin(partial(self.copies.prepare, content))

    def save(
        self,
        iteration: int,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        whole: Callable[[], None] = lambda: None,
    ) -> None:
        """Copy what a checkpoint holds, and let a thread write it, whole or not at all.

        To be called in every replica. It waits for the one before to be whole. Where host memory has no
        room for the copies, the checkpoint is whole when this returns. whole: called then, in the thread.

        Raises
        ------
        UserError, OSError: the one before could not be written (or this one, without the thread).
        """
        self.beside.wait()
        random = self.replicas.gathered(random_states(model.device))
        shared = shares_layers(model)
        if not self.replicas.is_first and not shared:
            return
        content = self._content(model, optimizer, random)
        if shared:
            content = changed(content, self._gathered)
            if self.replicas.is_first:
                self.beside.begin(partial(self._write, iteration, content, whole))
        elif self.copies.ready(content, model.device):
            content = self.copies.of(content, model.device)
            self.beside.begin(partial(self._write, iteration, content, whole))
        else:
            self._write(iteration, to_cpu(content), whole)

    def _content(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        random: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        """What a checkpoint holds; its tensors are those of the training.

        random: the states of the generators of each replica.
        """
        if self.adapters:
            tensors = self.adapters.tensors()
        else:
            published = published_tensors(model).items()
            tensors = {name: tensor.to(self.dtype) for name, tensor in published}
        content: dict[str, Any] = {"tensors": tensors}
        if self.train.save_optim:
            state = {"optimizer": optimizer.state_dict(), "random": random[0]}
            if len(random) > 1:
                state[OTHERS] = random[1:]
            content["extra"] = {STATE: state}
        return content

    def _gathered(self, place: tuple, tensor: torch.Tensor) -> torch.Tensor | None:
        """All of a tensor that devices share, in the first one's host memory."""
        found = all_of(tensor.detach())
        return found.to("cpu", copy=True) if self.replicas.is_first else None

    def _write(self, iteration: int, content: Mapping, whole: Callable[[], None]) -> None:
        save: Callable[..., Path] = save_trained
        if self.adapters and self.train.lora:
            save = partial(save_adapters, lora=self.train.lora.model_dump())
        save(
            self.save_dir,
            iteration,
            content["tensors"],
            self.config,
            extra=content.get("extra", {}),
            progress=self.beside.progress,
        )
        whole()

    def restore(self, iteration: int, optimizer: torch.optim.Optimizer) -> None:
        """Bring optimizer and main weights to where they were at `iteration`.

        The generators follow with `restore_random`, at the last moment before training: making
        a data loader draws a number.
        """
        content = torch.load(
            self._file(iteration), map_location="cpu", weights_only=True, mmap=True
        )
        if STATE not in content:
            log.warning(
                "iteration %d was saved without train.save_optim: Adam's moments start over, and "
                "the result will differ from that of an undisturbed training",
                iteration,
            )
            return
        state = content[STATE]
        optimizer.load_state_dict(state["optimizer"])
        rank = self.replicas.rank
        self.random = state[OTHERS][rank - 1] if rank else state["random"]

    def restore_random(self, device: torch.device) -> None:
        """Bring the generators to where they were, when a checkpoint was restored."""
        if self.random is not None:
            restore_random_states(self.random, device)
            self.random = None


def published_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All parameters under their published names; a tied output layer is left out."""
    family = tensors_of(model.config)
    found = {
        family.published_name(name): tensor.detach() for name, tensor in model.state_dict().items()
    }
    if model.config.tie_word_embeddings:
        found.pop(family.output_hf, None)
    return found


def to_cpu(value):
    """The same containers with all tensors on the CPU."""
    return changed(value, lambda _, tensor: tensor.detach().to("cpu"))


def random_states(device: torch.device) -> dict:
    """The states of all generators, in plain containers and tensors."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = numpy.random.get_state()
    states = {
        "python": [version, list(words), gauss],
        "numpy": [kind, torch.from_numpy(keys.astype("int64")), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }
    if device.type != "cpu":
        states["device"] = getattr(torch, device.type).get_rng_state(device)
    return states


def restore_random_states(states: Mapping, device: torch.device) -> None:
    """Undo `random_states`."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = states["numpy"]
    numpy.random.set_state((kind, keys.numpy().astype("uint32"), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if "device" in states:
        getattr(torch, device.type).set_rng_state(states["device"], device)
