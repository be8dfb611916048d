"""Writing a Hugging Face directory: weights in shards, the rest copied from the original."""

import json
import logging
import math
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mindtune.checkpoint.huggingface import INDEX, read_weight_map
from mindtune.checkpoint.reading import compare
from mindtune.checkpoint.writing import make_directory
from mindtune.errors import UserError
from mindtune.files import read_json
from mindtune.formats.safetensors_io import open_safetensors, safetensors_header
from mindtune.formats.streaming import Progress, Target, creating, pwrite, write_all
from mindtune.formats.views import View
from mindtune.models.tensors import Tensors

log = logging.getLogger("mindtune.checkpoint")

_MADE_BY = "mindtune"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx")


def is_ours(path: Path) -> bool:
    """Whether a directory was written by `mm_to_hf` (its index says so)."""
    try:
        return read_json(path / INDEX)["metadata"]["converted_by"] == _MADE_BY
    except (UserError, KeyError, TypeError):
        return False


def original_files(hf_dir: Path, family: Tensors) -> Mapping[str, str]:
    """Published name -> file name in the original's index; {} if there is none to go by."""
    return {family.published_name(name): file for name, file in read_weight_map(hf_dir).items()}


def distribution(
    tensors: Mapping[str, View], original: Mapping[str, str], limit: int
) -> list[dict[str, View]]:
    """The tensors of each output file: as in the original if no file gets larger than `limit`."""
    by_file: dict[str, dict[str, View]] = {}
    for name, view in tensors.items():
        by_file.setdefault(original.get(name, ""), {})[name] = view
    groups = [by_file[file] for file in sorted(by_file)]
    if original and "" not in by_file and all(_size(group) <= limit for group in groups):
        return groups
    groups = [{}]
    size = 200
    for name, view in tensors.items():
        need = view.nbytes + len(name) + 200  # more than its entry in the header takes
        if groups[-1] and size + need > limit:
            groups.append({})
            size = 200
        groups[-1][name] = view
        size += need
    return groups


def _size(group: Mapping[str, View]) -> int:
    """Bytes of a safetensors file of these tensors."""
    header, _ = safetensors_header(group)
    return len(header) + sum(view.nbytes for view in group.values())


def write_shards(
    directory: Path,
    groups: list[dict[str, View]],
    *,
    workers: int,
    progress: Progress | None,
    sync: bool,
) -> None:
    """Write one safetensors file per group, and the index that names itself as ours."""
    weight_map: dict[str, str] = {}
    with ExitStack() as stack:
        fds, targets = [], []
        for k, group in enumerate(groups, 1):
            name = f"model-{k:05d}-of-{len(groups):05d}.safetensors"
            header, offsets = safetensors_header(group)
            fd = stack.enter_context(creating(directory / name, _size(group)))
            pwrite(fd, header, 0)
            fds.append(fd)
            targets += [Target(fd, offsets[t], view, want_crc=False) for t, view in group.items()]
            weight_map.update(dict.fromkeys(group, name))
        write_all(targets, workers=workers, progress=progress)
        if sync:
            for fd in fds:
                os.fsync(fd)
    total = sum(view.nbytes for group in groups for view in group.values())
    index = {
        "metadata": {"total_size": total, "converted_by": _MADE_BY},
        "weight_map": dict(sorted(weight_map.items())),
    }
    text = json.dumps(index, indent=2) + "\n"
    (directory / INDEX).write_text(text, encoding="utf-8")


def write_file(path: Path, tensors: Mapping[str, View]) -> None:
    """Write a single safetensors file."""
    header, offsets = safetensors_header(tensors)
    with creating(path, _size(tensors)) as fd:
        pwrite(fd, header, 0)
        targets = [
            Target(fd, offsets[name], view, want_crc=False) for name, view in tensors.items()
        ]
        write_all(targets, workers=1, progress=None)


def verify_shards(
    directory: Path,
    tensors: Mapping[str, View],
    result: Path,
    workers: int,
    progress: Progress | None,
) -> None:
    """Read the shards in `directory` back and compare them with `tensors`; `result` names them."""
    with ExitStack() as stack:
        found: dict[str, View] = {}
        for path in sorted(directory.glob("*.safetensors")):
            file, views = open_safetensors(path)
            stack.callback(file.close)
            found.update(views)
        pairs = [(name, view, found[name]) for name, view in tensors.items()]
        compare(pairs, result, workers=workers, progress=progress)


def copy_rest(source: Path, target: Path) -> None:
    """Copy what is no weights: config, tokenizer, processor, licence, ..., following links."""
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        hidden = any(part.startswith(".") for part in relative.parts)
        weights = path.suffix in _WEIGHTS or path.name.endswith(".index.json")
        if path.is_file() and not hidden and not weights:
            make_directory((target / relative).parent)
            shutil.copyfile(path, target / relative)


def set_dtype(path: Path, config: dict[str, Any], tensors: Mapping[str, View]) -> None:
    """Make config.json name the dtype that the weights are in, if it names another."""
    by_dtype: dict[str, int] = {}
    for view in tensors.values():
        by_dtype[view.dtype] = by_dtype.get(view.dtype, 0) + math.prod(view.shape)
    main = max(by_dtype, key=by_dtype.__getitem__)
    sections = [config, *(v for v in config.values() if isinstance(v, dict))]
    changed = False
    for section in sections:
        for key in ("torch_dtype", "dtype"):
            if isinstance(section.get(key), str) and section[key] != main:
                section[key] = main
                changed = True
    if changed:
        log.warning("the weights are %s, so config.json is changed to say so", main)
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")
