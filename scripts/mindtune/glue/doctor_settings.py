"""What the doctor reads of the configuration, as plain values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mindtune.glue.settings_reading import Sources, answerer
from mindtune.settings import Configuration, Settings
from mindtune.settings.checks import DEMO_CONFIG
from mindtune.settings.mindspeed import pipeline_stages
from mindtune.settings.sources import Download
from mindtune.settings.typed import typed


def doctor_settings(configuration: Configuration, sources: Sources) -> dict[str, Any]:
    """What the doctor reads, as plain containers; `vllm`, where that answers.

    experiments: name -> of each the place of its model's config.json, the bytes of its weights where
    a table has them, `train`, `keep_checkpoints` and the layout. fetched: path -> bytes, of all that is
    fetched or unpacked into `downloads`.
    """
    common = configuration.typed()
    answers = answerer(configuration).name == "vllm"
    return {
        **({"vllm": common.vllm.model_dump()} if answers else {}),
        "mindspeed": common.mindspeed.model_dump(),
        "experiments": {
            name: _experiment(
                configuration.typed(name), sources.path("model", name), sources.models
            )
            for name in configuration.experiments
        },
        "downloads": common.sources.download.directory,
        "fetched": _fetched(sources),
    }


def with_types(plain: Mapping[str, Any]) -> dict[str, Any]:
    """What `doctor_settings` gave, with its sections as such."""
    found = {name: typed(name, plain[name]) for name in ("vllm", "mindspeed") if name in plain}
    found["experiments"] = {
        name: one | {"train": typed("train", one["train"])}
        for name, one in plain["experiments"].items()
    }
    return {**plain, **found}


def _fetched(sources: Sources) -> dict[str, int]:
    fetched = {
        str(Path(download.directory, file["name"])): file["size"] or 0
        for download in (*sources.files.values(), *sources.models.values())
        for file in download.files
    }
    sizes = {Path(path).name: size for path, size in fetched.items()}
    # Pictures don't compress: unpacked, they are as large as their archive.
    unpacked = {
        unpacking.target: sizes.get(Path(unpacking.source).name, 0)
        for unpacking in sources.pictures.values()
    }
    return fetched | unpacked


def _experiment(
    settings: Settings, model: str | None, downloads: Mapping[str, Download]
) -> dict[str, Any]:
    """model: the path of its directory, None for the demo's."""
    parallel = settings.parallel
    return {
        "config": str(DEMO_CONFIG if model is None else Path(model, "config.json")),
        "weight_bytes": _weight_bytes(downloads.get(Path(model or "").name)),
        "train": settings.train.model_dump(),
        "keep_checkpoints": settings.keep_checkpoints,
        "image_resolution": settings.processor.image_resolution,
        "tensor": parallel.tensor_model_parallel_size,
        "context": parallel.context_parallel_size,
        "stages": pipeline_stages(parallel),
    }


def _weight_bytes(download: Download | None) -> int:
    files = download.files if download else []
    return sum(file["size"] or 0 for file in files if file["name"].endswith(".safetensors"))
