"""What belongs together: commits, packages and content, from `envs/mindspeed`.

Sources: the README.md of MindSpeed-MM's example and its pyproject.toml at branch 2.0.0, and
MindSpeed's requirements.txt, at the commits of `pins.yaml`.
"""

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from packaging.requirements import Requirement as Specification

DIRECTORY = Path(__file__).resolve().parents[5] / "envs" / "mindspeed"
# What only an NPU needs; a stand-in takes its place.
NPU_ONLY = ("torch-npu",)
BUILD_TOOLS = ("setuptools", "wheel")


@dataclass(frozen=True)
class Repository:
    """A Git repository: where it is published, and the commit, with a branch or tag that has it."""

    name: str
    address: str
    ref: str
    commit: str


@dataclass(frozen=True)
class Requirement:
    """One package of the lock: its normalized name, version, and its lines with all hashes."""

    name: str
    version: str
    lines: str

    def wanted_on(self, machine: str) -> bool:
        """Whether its marker lets it be installed on Linux with such a processor."""
        marker = Specification(self.lines.split("\\\n", 1)[0]).marker
        environment = {
            "platform_machine": machine,
            "sys_platform": "linux",
            "python_version": "3.10",
            "python_full_version": "3.10.0",
        }
        return marker is None or marker.evaluate(environment)


@dataclass(frozen=True)
class Pins:
    """All that an installation is made of and held against.

    python: such as `3.10`. cann, driver: versions that MindSpeed-MM names. packages: those whose
    versions are checked. patched: (copied from, copied to), relative to the root of MindSpeed-MM.
    folders: made in that root. files: path relative to the root -> SHA-256. lock: what pip installs.
    """

    python: str
    cann: str
    driver: str
    packages: Mapping[str, str]
    repositories: Mapping[str, Repository]
    patched: tuple[str, str]
    folders: tuple[str, ...]
    files: Mapping[str, str]
    lock: tuple[Requirement, ...]

    def requirements(self, stand_in: bool, machine: str | None = None) -> list[Requirement]:
        """What is installed on a processor such as `aarch64`; without what a stand-in replaces."""
        machine = machine or platform.machine()
        return [
            requirement
            for requirement in self.lock
            if requirement.wanted_on(machine) and not (stand_in and requirement.name in NPU_ONLY)
        ]


def load_pins(directory: Path = DIRECTORY) -> Pins:
    """The pins in a directory such as `envs/mindspeed`."""
    plain = yaml.safe_load((directory / "pins.yaml").read_text(encoding="utf-8"))
    return Pins(
        python=plain["python"],
        cann=plain["cann"],
        driver=plain["driver"],
        packages=plain["packages"],
        repositories={
            name: Repository(name, **fields) for name, fields in plain["repositories"].items()
        },
        patched=(plain["patched"]["from"], plain["patched"]["to"]),
        folders=tuple(plain["folders"]),
        files=read_checksums((directory / "files.sha256").read_text(encoding="utf-8")),
        lock=tuple(read_lock((directory / "requirements.lock.txt").read_text(encoding="utf-8"))),
    )


def read_checksums(text: str) -> dict[str, str]:
    """The lines of `sha256sum`: path -> SHA-256."""
    pairs = (line.split(maxsplit=1) for line in text.splitlines())
    return {path: digest for digest, path in pairs}


def read_lock(text: str) -> list[Requirement]:
    """The packages of a pip requirements file with hashes, one for each `name==version`."""
    found = []
    for block in re.split(r"\n(?=[A-Za-z0-9])", text):
        match = re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", block)
        if match:
            found.append(Requirement(normalized(match[1]), match[2], block.rstrip()))
    return found


def normalized(name: str) -> str:
    """A package's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
