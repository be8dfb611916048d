"""What the doctor reads of the configuration, as plain values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mindtune.glue.settings_reading import Sources, answerer
from mindtune.settings import Configuration
from mindtune.settings.checks import DEMO_CONFIG
from mindtune.settings.mindspeed import pipeline_stages
from mindtune.settings.sources import Download

TRAIN = (
    "train_iters", "save_interval", "save_optim", "micro_batch_size", "freeze_vision_encoder",
    "freeze_vision_projector",
)  # fmt: skip


def doctor_settings(configuration: Configuration, sources: Sources) -> dict[str, Any]:
    """Just the keys that the doctor reads; `vllm`, where that answers.

    experiments: name -> of each the place of its model's config.json, the bytes of its weights where
    a table has them, keys of `train` with `keep_checkpoints`, and the layout. fetched: path -> bytes, of all that is fetched
    or unpacked into `downloads`.
    """
    answers = answerer(configuration).name == "vllm"
    return {
        **({"vllm": configuration.common.get("vllm", {})} if answers else {}),
        "mindspeed": configuration.common["mindspeed"],
        "experiments": {
            name: _experiment(settings, sources.path("model", name), sources.models)
            for name, settings in configuration.experiments.items()
        },
        "downloads": configuration.common["sources"]["download"]["directory"],
        "fetched": _fetched(sources),
    }


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
    settings: Mapping[str, Any], model: str | None, downloads: Mapping[str, Download]
) -> dict[str, Any]:
    """model: the path of its directory, None for the demo's."""
    parallel = settings["parallel"]
    return {
        "config": str(DEMO_CONFIG if model is None else Path(model, "config.json")),
        "weight_bytes": _weight_bytes(downloads.get(Path(model or "").name)),
        "train": {key: settings["train"][key] for key in TRAIN}
        | {key: settings["train"][key] for key in ("lora",) if key in settings["train"]}
        | {key: settings[key] for key in ("keep_checkpoints",) if key in settings},
        "image_resolution": settings["processor"]["image_resolution"],
        "tensor": parallel["tensor_model_parallel_size"],
        "context": parallel["context_parallel_size"],
        "stages": pipeline_stages(parallel),
    }


def _weight_bytes(download: Download | None) -> int:
    files = download.files if download else []
    return sum(file["size"] or 0 for file in files if file["name"].endswith(".safetensors"))
