"""The doctor's rows of vLLM: its Python, the device, memory, arguments, and the models' architectures."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtune.engines.launching import OURS, Launch, exported
from mindtune.engines.mindspeed.framework.rows import FAIL, OK, WARNING, Row
from mindtune.engines.mindspeed.framework.sizes import known_parameters
from mindtune.engines.vllm.answer import environment_of
from mindtune.engines.vllm.faults import Faults
from mindtune.engines.vllm.python import (
    PROGRAMS,
    Python,
    installed_python,
    place_of,
    vllm_python,
)
from mindtune.errors import UserError
from mindtune.files import read_json, write_json
from mindtune.process import ended

if TYPE_CHECKING:
    from mindtune.settings.sections.vllm import Vllm

NAMES = {"device": "vLLM's device", "arguments": "vllm.arguments", "load": "vLLM"}
BYTES = {"fp32": 4, "bf16": 2}
ROOM = 1.2  # of the weights, for the cache and what is computed


@dataclass(frozen=True)
class Model:
    """A model that is to answer. directory: of its config.json. parameters: how many it has."""

    directory: Path
    architectures: Sequence[str]
    parameters: int


def models_of(experiments: Iterable[Mapping[str, Any]]) -> list[Model]:
    """Those of experiments of `doctor_settings` whose config.json is there."""
    found = {}
    for experiment in experiments:
        path = Path(experiment["config"])
        if path.is_file():
            architectures = read_json(path).get("architectures") or []
            found[path] = Model(
                path.parent, tuple(architectures), known_parameters(experiment).total
            )
    return list(found.values())


def vllm_rows(section: "Vllm", models: Sequence[Model]) -> Iterator[Row]:
    """section: `vllm`. models: those that are to answer."""
    if section.python is None and installed_python(section) is None:
        yield Row(
            "vLLM's Python", WARNING, f"isn't installed yet; the run does that first, in {place_of(section)}."
        )  # fmt: skip
        return
    try:
        python = vllm_python(section)
    except UserError as error:
        yield Row("vLLM's Python", FAIL, str(error))
        return
    shown = ", ".join(f"{name} {version}" for name, version in python.packages.items())
    yield Row("vLLM's Python", OK, f"Python {python.version}, {shown}")
    if not models:
        yield Row("vLLM's device", WARNING, "is looked at when a model's config.json is there.")
        return
    try:
        found = _looked(section, python, models)
    except Refused as error:
        yield Row(error.name, FAIL, str(error))
        return
    device = section.device
    yield Row(NAMES["device"], OK, f"vLLM runs on {device}")
    if found["bytes_free"] is not None:
        yield memory_row(section, found, models)
    words = " ".join(section.arguments)
    yield Row(NAMES["arguments"], OK, words or "none")
    if found["unknown"]:
        yield Row(
            "architecture", FAIL,
            f"this vLLM doesn't know {', '.join(found['unknown'])}; install a newer one in vllm.python, or "
            "write `answer.engine: hf`.",
        )  # fmt: skip
    else:
        names = dict.fromkeys(name for model in models for name in model.architectures)
        yield Row("architecture", OK, ", ".join(names))


class Refused(UserError):
    """name: of the row."""

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__(sentence)
        self.name = name


def _looked(section: "Vllm", python: Python, models: Sequence[Model]) -> dict[str, Any]:
    """What vLLM says of itself, the device and the models, without loading one."""
    with tempfile.TemporaryDirectory() as made:
        run = Path(made)
        job = {
            "look": str(run / "look.json"), "error": str(run / "error.json"),
            "model": str(models[0].directory), "device": section.device,
            "arguments": list(section.arguments),
            "architectures": [name for model in models for name in model.architectures],
        }  # fmt: skip
        write_json(run / "job.json", job)
        faults = Faults(section)
        status = Launch(
            run, python.path, [str(PROGRAMS / "answer.py")], [str(run / "job.json")],
            setup=[f"unset {' '.join(OURS)}", *exported(environment_of(section))],
        ).run(faults.hear)  # fmt: skip
        if (run / "error.json").is_file():
            refused = read_json(run / "error.json")
            sentence = faults.refused(refused["kind"], refused["text"])
            raise Refused(NAMES[refused["kind"]], sentence)
        if not (run / "look.json").is_file():
            said = faults.last or "it says nothing"
            raise Refused(
                NAMES["load"], f"it {ended(status)}: {said}; start it by hand to see more."
            )
        return read_json(run / "look.json")


def memory_row(section: "Vllm", found: Mapping[str, Any], models: Sequence[Model]) -> Row:
    name, free = "vLLM's memory", found["bytes_free"]
    needed = BYTES[section.precision] * max(model.parameters for model in models)
    said = f"{free / 1e9:.1f} of {found['bytes_total'] / 1e9:.1f} GB are free, the weights take {needed / 1e9:.1f}"
    spread = any("parallel-size" in word for word in section.arguments)
    if needed > free and not spread:
        return Row(
            name, FAIL,
            f"{said}; free the device, write vllm.precision: bf16, or --tensor-parallel-size in "
            "vllm.arguments.",
        )  # fmt: skip
    return Row(name, WARNING if ROOM * needed > free and not spread else OK, f"{said}.")
