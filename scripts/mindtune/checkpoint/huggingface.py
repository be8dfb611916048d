"""A model's Hugging Face directory: its tensors as views, by their published names."""

from pathlib import Path
from typing import Any

from mindtune.errors import UserError
from mindtune.files import read_json
from mindtune.formats.safetensors_io import open_safetensors
from mindtune.formats.sources import FileSource
from mindtune.formats.views import View
from mindtune.models.shape import ModelShape, model_shape, read_config
from mindtune.models.tensors import hf_shapes, tensors_of

INDEX = "model.safetensors.index.json"


def matched(
    found: dict[str, View], shape: ModelShape, where: str
) -> tuple[dict[str, View], View | None]:
    """The model's tensors out of `found`, checked against the shapes config.json implies.

    Names are normalised, rotary buffers dropped. The second value is an output layer
    found in a tied model, where it has to equal the embedding. Raises UserError for tensors
    that are missing, unknown, of a wrong shape or, within a fused tensor, of mixed dtypes.
    """
    family = tensors_of(shape)
    tensors: dict[str, View] = {}
    for name, view in found.items():
        published = family.published_name(name)
        if published in tensors:
            raise UserError(f"{where}: {published} is there twice, under two names")
        if not family.computed.search(published):
            tensors[published] = view
    wanted = hf_shapes(shape)
    spare = tensors.pop(family.output_hf, None) if shape.tied else None
    missing = [name for name in wanted if name not in tensors]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{where} lacks the tensor {missing[0]}{more}, which config.json implies")
    unknown = [name for name in tensors if name not in wanted]
    if unknown:
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise UserError(
            f"{where} has a tensor {unknown[0]}{more} that a {family.name} model "
            "of the size in config.json does not have"
        )
    expected, everything = dict(wanted), dict(tensors)
    if spare is not None:
        expected[family.output_hf] = wanted[family.embedding_hf]
        everything[family.output_hf] = spare
    for name, view in everything.items():
        if view.shape != expected[name]:
            raise UserError(
                f"{where}: {name} has the shape {list(view.shape)}, "
                f"config.json implies {list(expected[name])}"
            )
    return {name: tensors[name] for name in wanted}, spare


def read_weight_map(hf_dir: Path) -> dict[str, str]:
    """Tensor -> name of its file, from a directory's index; {} where there is no index.

    Raises
    ------
    UserError: the index isn't one.
    """
    path = hf_dir / INDEX
    if not path.exists():
        return {}
    index: Any = read_json(path)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict):
        kind = type(weight_map).__name__ if isinstance(index, dict) else "missing"
        raise UserError(
            f"{path}: its weight_map is {_KINDS.get(kind, kind)}, but must be an object that names the "
            "file of each tensor; download it again."
        )
    for tensor, file in weight_map.items():
        if not isinstance(file, str) or not file or Path(file).name != file:
            raise UserError(
                f"{path}: its weight_map has {file!r} for {tensor}, but has to name files of the same "
                "directory; download it again."
            )
    if not weight_map:
        raise UserError(f"{path}: its weight_map is empty; download it again.")
    return weight_map


_KINDS = {"NoneType": "missing", "list": "a list", "str": "text", "int": "a number",
          "float": "a number", "bool": "true or false"}  # fmt: skip


class HFCheckpoint:
    """An open Hugging Face directory.

    config: config.json, parsed; shape: its sizes; tensors: published name -> view, in the
    order of `hf_shapes`; spare_output: the output layer of a tied model, if saved;
    files: published name -> name of the file it lies in. Use it in a `with` block.
    """

    def __init__(self, hf_dir: str | Path):
        self.path = Path(hf_dir)
        self.config = read_config(self.path)
        self.shape = model_shape(self.config, str(self.path / "config.json"))
        self._open: list[FileSource] = []
        self.files: dict[str, str] = {}
        try:
            self.tensors, self.spare_output = matched(self._read(), self.shape, str(self.path))
        except BaseException:
            self.close()
            raise

    def _read(self) -> dict[str, View]:
        weight_map = read_weight_map(self.path)
        family = tensors_of(self.shape)
        views: dict[str, View] = {}
        for name in sorted(set(weight_map.values())) if weight_map else self._all_files():
            path = self.path / name
            if not path.is_file():
                raise UserError(f"{path} is missing, though {INDEX} names it")
            file, found = open_safetensors(path)
            self._open.append(file)
            for tensor, view in found.items():
                if weight_map and weight_map.get(tensor) != name:
                    continue
                if tensor in views:
                    raise UserError(f"{self.path}: {tensor} is in two files, and there is no index")
                views[tensor] = view
                self.files[family.published_name(tensor)] = name
        absent = [name for name in weight_map if name not in views]
        if absent:
            file = weight_map[absent[0]]
            raise UserError(f"{self.path}: {absent[0]} is not in {file}, though {INDEX} says so")
        return views

    def _all_files(self) -> list[str]:
        names = sorted(path.name for path in self.path.glob("*.safetensors"))
        if not names:
            raise UserError(f"{self.path} has no *.safetensors file, so no weights to convert")
        return ["model.safetensors"] if "model.safetensors" in names else names

    def close(self) -> None:
        """Close the files; the views can no longer be read."""
        for file in self._open:
            file.close()

    def __enter__(self) -> "HFCheckpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
