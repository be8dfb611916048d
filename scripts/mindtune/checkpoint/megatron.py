"""A Megatron checkpoint directory of MindSpeed-MM, read at whatever layout its files show.

    DIR/latest_checkpointed_iteration.txt       "release" or the number of the iteration
    DIR/release/mp_rank_TT[_PPP]/model_optim_rng.pt
    DIR/iter_NNNNNNN/mp_rank_TT[_PPP]/model_optim_rng.pt

TT is the tensor rank, PPP the pipeline stage (absent with one stage). A file holds
`{"model": {name: tensor}}` or, with a virtual pipeline, `model0`, `model1`, ...; one saved
in training holds other things beside it. Source: MindSpeed-MM 2.0.0, checkpoint/utils.py, and
Megatron-LM core_r0.8.0, megatron/training/checkpointing.py.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mindtune.checkpoint.layout import ParallelLayout
from mindtune.errors import UserError
from mindtune.files import regular, writing
from mindtune.formats.torch_zip import TorchFile
from mindtune.formats.unpickle import Placeholder, StoredTensor
from mindtune.formats.views import View
from mindtune.models.tensors import LAYER, Entry, Split, Tensors, unshard

TRACKER = "latest_checkpointed_iteration.txt"
RANK_FILE = "model_optim_rng.pt"

_RANK = re.compile(r"mp_rank_(\d{2,})(?:_(\d{3,}))?$")
_ITERATION = re.compile(r"iter_(\d{7,})$")


def read_tracker(mm_dir: str | Path) -> int | str:
    """What the tracker file of a checkpoint directory names: an iteration, or "release"."""
    path = Path(mm_dir) / TRACKER
    if not Path(mm_dir).is_dir():
        raise UserError(f"{mm_dir} is not a directory; a Megatron checkpoint is needed there")
    try:
        if not path.exists():
            raise UserError(f"{path} does not exist, so no checkpoint is to be found there")
        text = regular(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if text == "release":
        return text
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    raise UserError(f"{path} says {text[:60]!r}; it has to be a number or the word release")


def iterations(save_dir: str | Path) -> list[int]:
    """The iterations of which a directory has a directory, whole or not, in order."""
    return sorted(
        int(match[1])
        for path in Path(save_dir).glob("iter_*")
        if (match := _ITERATION.match(path.name)) and path.is_dir()
    )


def track(save_dir: str | Path, iteration: int) -> None:
    """Let the tracker name an iteration, unless it does already."""
    tracker = Path(save_dir) / TRACKER
    if not tracker.is_file() or tracker.read_text(encoding="utf-8").strip() != str(iteration):
        with writing(tracker) as handle:
            handle.write(str(iteration))


def iteration_name(iteration: int) -> str:
    """Name of an iteration's directory."""
    return f"iter_{iteration:07d}"


def iteration_directory(mm_dir: str | Path, iteration: int | str | None = None) -> Path:
    """The directory of an iteration ("release" or a number; None: what the tracker names)."""
    named = read_tracker(mm_dir) if iteration is None else iteration
    if isinstance(named, str) and named.isdigit():
        named = int(named)
    if named != "release" and not isinstance(named, int):
        raise UserError(f"iteration is {named!r}; a number or the word release is needed")
    directory = Path(mm_dir) / ("release" if named == "release" else iteration_name(named))
    if not directory.is_dir():
        by = f"{TRACKER} names" if iteration is None else "was asked for"
        raise UserError(f"{directory} does not exist, though {by} {named}")
    return directory


def rank_directories(directory: Path) -> dict[tuple[int, int], Path]:
    """(tensor rank, stage) -> rank directory; UserError unless they form a full grid."""
    found: dict[tuple[int, int], Path] = {}
    kinds = set()
    for path in sorted(directory.iterdir()):
        match = _RANK.match(path.name)
        if match and path.is_dir():
            kinds.add(match[2] is not None)
            found[int(match[1]), int(match[2] or 0)] = path
    if not found:
        raise UserError(f"{directory} has no mp_rank_* directories, so no weights in torch format")
    if len(kinds) > 1:
        raise UserError(f"{directory} mixes mp_rank_TT and mp_rank_TT_PPP; two layouts lie there")
    tp_size, pp_size = (max(rank[n] for rank in found) + 1 for n in (0, 1))
    for tp_rank in range(tp_size):
        for pp_rank in range(pp_size):
            path = found.get((tp_rank, pp_rank))
            if path is None or not (path / RANK_FILE).is_file():
                raise UserError(
                    f"{directory} lacks the file of tensor rank {tp_rank}, stage {pp_rank} "
                    f"(of {tp_size} x {pp_size} that its directories show)"
                )
    return found


class MMCheckpoint:
    """An open Megatron checkpoint.

    directory: its `release` or `iter_*`; layout: as the files show it; arguments: what `args`
    of a trained file says (a dict, {} if absent). `whole(entry)` gives a tensor of the model.
    Use it in a `with` block; `check()` at the end verifies the checksums of what was read.
    """

    def __init__(self, mm_dir: str | Path, iteration: int | str | None = None):
        self.path = Path(mm_dir)
        self.directory = iteration_directory(mm_dir, iteration)
        self.files: dict[tuple[int, int], TorchFile] = {}
        self._shards: dict[str, list[list[View]]] = {}  # name -> by tensor rank: its copies
        try:
            ranks = rank_directories(self.directory)
            for rank, path in ranks.items():
                self.files[rank] = TorchFile(path / RANK_FILE)
            self.arguments = _arguments(self.files[0, 0].tree)
            self._read()
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        tp_size, pp_size = (max(rank[n] for rank in self.files) + 1 for n in (0, 1))
        models = {
            rank: _models(file.tree, str(file.path)) for rank, file in sorted(self.files.items())
        }
        vpp_size = len(models[0, 0])
        for rank, chunks in models.items():
            if len(chunks) != vpp_size:
                raise UserError(
                    f"{self.files[rank].path} has {len(chunks)} model chunks, "
                    f"{self.files[0, 0].path} has {vpp_size}"
                )
        vit: list[list[int]] = []
        llm: list[list[int]] = []
        for v in range(vpp_size):
            vit.append([])
            llm.append([])
            for p in range(pp_size):
                starts = (sum(map(sum, vit)), sum(map(sum, llm)))
                counts = {self._read_chunk(t, p, models[t, p][v], starts) for t in range(tp_size)}
                if len(counts) > 1:
                    raise UserError(
                        f"{self.directory}: the tensor ranks of stage {p} hold different layers"
                    )
                counted = counts.pop()
                vit[v].append(counted[0])
                llm[v].append(counted[1])
        self.layout = ParallelLayout.make(tp_size=tp_size, llm_pp_layers=llm, vit_pp_layers=vit)

    def _read_chunk(
        self, t: int, p: int, model: dict[str, Any], starts: tuple[int, int]
    ) -> tuple[int, int]:
        """Take in a chunk's tensors; its (vision, language) layer counts."""
        file = self.files[t, p]
        found: tuple[set[int], set[int]] = (set(), set())
        for name, tensor in model.items():
            if tensor is None or name.endswith("._extra_state"):
                continue
            if not isinstance(tensor, StoredTensor):
                raise UserError(f"{file.path}: {name} is not a plain tensor but {tensor!r}")
            whole_name = name
            if match := LAYER.search(name):
                tower = 0 if name.startswith("image_encoder.") else 1
                found[tower].add(int(match[1]))
                number = int(match[1]) + starts[tower]
                whole_name = f"{name[: match.start(1)]}{number}{name[match.end(1) :]}"
            shards = self._shards.setdefault(whole_name, [])
            while len(shards) <= t:
                shards.append([])
            shards[t].append(file.view(tensor, name))
        for kind, layers in zip(("vision", "language"), found, strict=True):
            if layers != set(range(len(layers))):
                raise UserError(
                    f"{file.path}: its {kind} layers are numbered {sorted(layers)}, not from 0 on"
                )
        return len(found[0]), len(found[1])

    @property
    def is_lora(self) -> bool:
        """Whether this holds nothing but LoRA adapters."""
        return bool(self._shards) and all(".lora_" in name for name in self._shards)

    def beside(self, name: str) -> dict[str, Any]:
        """A mapping that stands beside the model in the first rank's file, {} if absent."""
        found = self.files[0, 0].tree.get(name)
        return found if isinstance(found, dict) else {}

    def names(self) -> list[str]:
        """All tensor names, layers numbered through the whole model."""
        return list(self._shards)

    def shards(self, name: str) -> list[View]:
        """A tensor's piece on each tensor rank (the first, where several stages hold it)."""
        shards = self._shards.get(name)
        if shards is None:
            raise UserError(f"{self.directory} lacks the tensor {name}")
        if len(shards) != self.layout.tp_size or not all(shards):
            raise UserError(f"{self.directory}: {name} is not on all {self.layout.tp_size} ranks")
        return [copies[0] for copies in shards]

    def whole(self, entry: Entry) -> View:
        """A tensor of the model, all tensor ranks joined."""
        shards = self.shards(entry.mm)
        if len({(view.dtype, view.shape) for view in shards}) > 1:
            raise UserError(f"{self.directory}: {entry.mm} differs in shape or dtype between ranks")
        return unshard(entry.rule.split, shards)

    def copies(self, family: Tensors) -> Iterator[tuple[str, View, View]]:
        """(name, first, other) for tensors that several ranks hold and that must be equal."""
        for name, shards in self._shards.items():
            first = shards[0][0]
            rule = family.rule_of(name)
            if rule and rule.split is Split.COPY:
                for copies in shards[1:]:
                    yield name, first, copies[0]
            for copies in shards:
                for other in copies[1:]:
                    yield name, copies[0], other

    def unknown_names(self, entries: list[Entry]) -> list[str]:
        """Names of tensors that are none of `entries`."""
        known = {entry.mm for entry in entries}
        return [name for name in self._shards if name not in known]

    def check(self) -> None:
        """Raise UserError if a record that was read does not have its checksum."""
        for file in self.files.values():
            file.check()

    def close(self) -> None:
        """Close the files; the views can no longer be read."""
        for file in self.files.values():
            file.close()

    def __enter__(self) -> "MMCheckpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _models(tree: Any, where: str) -> list[dict[str, Any]]:
    """The model dictionary of each VPP chunk of a rank file."""
    if isinstance(tree, dict):
        chunks = list(itertools.takewhile(tree.__contains__, map("model{}".format, range(1000))))
        models = [tree[name] for name in (["model"] if "model" in tree else chunks)]
        if models and all(
            isinstance(model, dict) and all(isinstance(key, str) for key in model)
            for model in models
        ):
            return models
    raise UserError(
        f"{where} has no model in it: neither 'model' nor 'model0' is a dictionary there"
    )


def _arguments(tree: Any) -> dict[str, Any]:
    args = tree.get("args") if isinstance(tree, dict) else None
    state = args.state if isinstance(args, Placeholder) else None
    return state if isinstance(state, dict) else {}
