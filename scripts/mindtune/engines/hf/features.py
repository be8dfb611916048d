"""What a frozen vision tower makes of pictures: computed once, and kept in memory, then on the disk.

Each picture goes through the tower alone, so that its features are the same bits whatever is asked
beside it and whatever is kept already; `tests/unit/test_features.py` asserts that on a CPU they are also
those of a batch, at the demo's size. They are kept by the content of the picture's file, below a
directory whose name stands for all else that they depend on: the tower's weights, how pictures are
prepared, the versions of the libraries, and the device. So all experiments with the same tower share
them. A file is renamed into place when it is whole and has a checksum; one that is damaged counts as none.

On a CPU with one thread the processes that load data do all this, ahead of the training.
"""

import hashlib
import json
import logging
import multiprocessing
import platform
import secrets
import shutil
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import PIL
import torch
import transformers

from mindtune.engines.hf.levels import side_by_side
from mindtune.engines.hf.packing import picture_features
from mindtune.engines.hf.processing import Processor
from mindtune.engines.hf.shown import Shown
from mindtune.files import bytes_below
from mindtune.formats.checksum import crc32
from mindtune.models.hf import classes_of

log = logging.getLogger(__name__)

MEMORY = 1 << 30  # bytes of a training, of all its processes together
MOST_PENDING = 64  # pictures whose features are still on the device
LARGEST_HEADER = 1000
FORMAT = 1


class Tower:
    """A model's vision tower, as a training uses it.

    inner: transformers' model below its output layer. packed: whether it attends by segments.
    projected: whether the projector, which merges patches, is frozen, too.
    """

    def __init__(self, inner: torch.nn.Module, packed: bool, projected: bool = True) -> None:
        self.inner, self.packed, self.projected = inner, packed, projected
        self.projector = classes_of(inner.config.model_type).PROJECTOR

    @torch.no_grad()
    def __call__(self, pixel_values: torch.Tensor, grid_thw: torch.Tensor) -> torch.Tensor:
        """The features of one picture: what comes out of the projector, or what it is given."""
        visual = self.inner.visual
        pixel_values, grid_thw = pixel_values.to(visual.device), grid_thw.to(visual.device)
        given: list[torch.Tensor] = []
        projector = visual.get_submodule(self.projector)
        note = projector.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        try:
            if self.packed:
                found = picture_features(self.inner, pixel_values, grid_thw)
            else:
                found = side_by_side(
                    self.inner.get_image_features(pixel_values, grid_thw, return_dict=True)
                )
        finally:
            note.remove()
        return found if self.projected else given[0]

    def digest(self) -> str:
        """A hash of its weights and of what computes with them."""
        visual = self.inner.visual
        about = {
            "format": FORMAT, "packed": self.packed, "projected": self.projected, "config": self.inner.config.to_json_string(),
            "torch": torch.__version__, "transformers": transformers.__version__,
            "threads": torch.get_num_threads(), "device": _device(visual.device),
        }  # fmt: skip
        found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for name, tensor in visual.state_dict().items():
            if not self.projected and name.startswith(f"{self.projector}."):
                continue
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(memoryview(_bytes_of(tensor)))
        return found.hexdigest()


class Store:
    """Features in files below a directory, which several trainings may use at once.

    room: bytes that may be written. directory: None for no files at all.
    """

    def __init__(self, directory: Path | None, room: int) -> None:
        self.directory, self.room = directory, room

    def path(self, name: str) -> Path:
        return self.directory / name[:2] / name

    def read(self, name: str) -> Shown | None:
        """The picture with its features; None where there are none, or a file is damaged."""
        if self.directory is None:
            return None
        try:
            content = self.path(name).read_bytes()
        except OSError:
            return None
        return unpacked(name, content)

    def write(self, shown: Shown) -> None:
        """Keep a picture's features, if there is room; what can't be written is computed again."""
        if self.directory is None:
            return
        content = packed(shown)
        if len(content) > self.room:
            return
        path = self.path(shown.name)
        partial = path.with_name(f".{shown.name}.{secrets.token_hex(4)}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            partial.replace(path)
            self.room -= len(content)
        except FileNotFoundError:
            pass  # somebody cleans up
        except OSError as error:
            log.warning("features of pictures are kept in memory only: %s", error)
            self.directory = None
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def packed(shown: Shown) -> bytes:
    """The content of a file: a line of JSON, and the features' bytes."""
    data = _bytes_of(shown.features)
    header = {
        "grid": shown.grid_thw[0].tolist(), "shape": list(shown.features.shape),
        "dtype": str(shown.features.dtype).removeprefix("torch."), "crc32": crc32(data),
    }  # fmt: skip
    return json.dumps(header).encode() + b"\n" + data


def unpacked(name: str, content: bytes) -> Shown | None:
    """What `packed` made into bytes; None if these are not all of it."""
    line, _, data = content[:LARGEST_HEADER].partition(b"\n")
    data = content[len(line) + 1 :]
    try:
        header = json.loads(line)
        if crc32(data) != header["crc32"]:
            return None
        features = torch.frombuffer(bytearray(data), dtype=getattr(torch, header["dtype"]))
        grid = torch.tensor([header["grid"]])
        return Shown(name, grid, features.view(header["shape"]))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        return None


class Features:
    """The features of a training's pictures.

    look: called where data is loaded. of: called by the training for each picture.
    """

    def __init__(
        self, tower: Tower, processor: Processor, place: Path | None, room: int, loaders: int
    ) -> None:
        """place: the directory of all features, None to keep them in memory only. loaders: the
        processes that load data."""
        self.tower, self.processor = tower, processor
        self.names: dict[Path, str] = {}
        self.kept: dict[str, Shown] = {}
        # Threads of the parent's are not there in a process that was forked.
        alone = tower.inner.device.type == "cpu" and torch.get_num_threads() == 1
        self.ahead = alone and multiprocessing.get_start_method() == "fork"
        # Copying from a device and writing would keep the training waiting.
        self.beside = (
            None if tower.inner.device.type == "cpu" else ThreadPoolExecutor(1, "features")
        )
        self.pending: deque[Future] = deque()
        sharing = loaders if self.ahead else 1
        self.memory = MEMORY // (loaders + 1)
        left = free_of(place, room) // sharing if place is not None else 0
        self.store = Store(place and place / self._digest(), left)

    def __getstate__(self) -> dict:
        """For a process that is started anew: without the tower, which stays with the training."""
        return vars(self) | {"tower": None, "ahead": False, "beside": None, "pending": None}

    def _digest(self) -> str:
        about = [self.tower.digest(), self.processor.image_resolution, PIL.__version__,
                 self.processor.image_processor.to_json_string()]  # fmt: skip
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]

    def look(self, path: Path) -> Shown:
        """A picture of a file, with its features where they are known or computed ahead.

        Raises
        ------
        UserError: it can't be used.
        """
        name = self._name(path)
        if name in self.kept:
            return self.kept[name]
        found = self.store.read(name)
        if found is not None:
            self._keep(found)
            return found
        picture = self.processor.picture(self.processor.open_image(path))
        shown = Shown(name, picture.grid_thw, pixel_values=picture.pixel_values)
        return self._computed(shown) if self.ahead else shown

    def of(self, shown: Shown) -> torch.Tensor:
        """A picture's features, on the device that it is on."""
        if shown.features is not None:
            return shown.features
        found = self.kept.get(shown.name) or self._computed(shown)
        return found.features.to(shown.grid_thw.device)

    def merged(self, features: torch.Tensor) -> torch.Tensor:
        """What stands for the image tokens, of the features of some pictures; a projector that is
        trained has its part in the gradients."""
        if self.tower.projected:
            return features
        return self.tower.inner.visual.get_submodule(self.tower.projector)(features)

    def _name(self, path: Path) -> str:
        if path not in self.names:
            if not path.is_file():
                self.processor.open_image(path)  # says what is wrong with it
            with open(path, "rb") as handle:
                self.names[path] = hashlib.file_digest(handle, "sha256").hexdigest()
        return self.names[path]

    def _computed(self, shown: Shown) -> Shown:
        features = self.tower(shown.pixel_values, shown.grid_thw)
        found = Shown(shown.name, shown.grid_thw, features)
        if self.beside is None:
            self._store(found)
        else:
            self.pending.append(self.beside.submit(self._store, found))
            while len(self.pending) > MOST_PENDING:
                self.pending.popleft().result()
        return found

    def _store(self, found: Shown) -> None:
        found = found.to(torch.device("cpu"))
        self.store.write(found)
        self._keep(found)

    def _keep(self, found: Shown) -> None:
        size = found.features.nbytes
        if size <= self.memory:
            self.memory -= size
            self.kept[found.name] = found


def tower_of(model: torch.nn.Module, packed: bool) -> Tower | None:
    """A model's vision tower, where it is frozen.

    None also where the projector is trained and the tower gives it patches in another order than
    that of the picture, as one with windows does, or has others beside it that are trained.
    """
    family = classes_of(model.config.model_type)
    named = model.model.visual.named_parameters()
    trained = [name for name, one in named if one.requires_grad]
    if not all(name.startswith(f"{family.PROJECTOR}.") for name in trained):
        return None
    if trained and not family.PATCHES_IN_ORDER:
        return None
    return Tower(model.model, packed, projected=not trained)


def prepare(place: Path) -> None:
    """Remove what no training of this code will use again, and what killed ones left half-written.

    place: the directory of all features of this code; others are beside it. A training that writes at
    the same time only has to compute again what it loses.
    """
    for other in place.parent.glob("*"):
        if other != place:
            shutil.rmtree(other, ignore_errors=True)
    for left in place.rglob("*.partial"):
        left.unlink(missing_ok=True)


def free_of(place: Path, room: int) -> int:
    """Bytes that may still be written below a directory; checkpoints need some of the disk, too."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(place).free
    except OSError:
        return 0
    return max(0, min(room - bytes_below(place), free // 4))


def _bytes_of(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes()


def _device(device: torch.device) -> list[str]:
    """What computes: two machines may differ in last digits."""
    if device.type == "cpu":
        return ["cpu", platform.machine(), _processor(), torch.backends.cpu.get_cpu_capability()]
    backend = getattr(torch, device.type)
    return [
        device.type,
        backend.get_device_name(device),
        str(getattr(torch.version, device.type, "")),
    ]


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n"):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
