"""Converters between Hugging Face's layout and MindSpeed-MM's.

They belong to no engine. Each is a module with two functions: `prepare(PrepareJob)` makes an mm
checkpoint (`release`) of a Hugging Face model, `export(ExportJob)` a Hugging Face model of the newest
checkpoint of a save_dir. `mindtune` is ours; `mm-convert` is the tutorial's own, which the
framework brings. A module is imported only where it is chosen.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType

OWN = "mindtune"
CONVERTERS = {
    OWN: "mindtune.engines.converting.own",
    "mm-convert": "mindtune.engines.mindspeed.mm_convert",
}


def converter(name: str) -> ModuleType:
    """The module with a converter's `prepare` and `export`."""
    return import_module(CONVERTERS[name])


def converter_sources(name: str) -> list[Path]:
    """The file of that module."""
    place = Path(__file__).parents[3].joinpath(*CONVERTERS[name].split("."))
    return [place.with_suffix(".py")]
