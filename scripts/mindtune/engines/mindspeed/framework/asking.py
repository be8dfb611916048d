"""Asking the framework's Python, by a program that runs in it."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mindtune.engines.mindspeed.framework import environment, probe
from mindtune.engines.mindspeed.framework.pins import normalized
from mindtune.errors import UserError

MODULES = ("mindspeed", "mindspeed_mm", "megatron", "checkpoint")


@dataclass(frozen=True)
class Packages:
    """What a Python has installed.

    python: its version. versions: normalized package name -> version. damaged: name -> the first
    file of it that is missing or cut. urls: name -> where an editable one points. places: module of
    the framework -> its directory, None where it isn't found.
    """

    python: str
    versions: dict[str, str]
    damaged: dict[str, str] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)
    places: dict[str, str | None] = field(default_factory=dict)


def interpreter(value: str, version: str) -> Path:
    """The Python that `mindspeed.python` names, absolute; links stay, as they name environments.

    Raises
    ------
    UserError: it isn't there, or is another version.
    """
    path = shutil.which(Path(value).expanduser())
    if path is None:
        raise UserError(
            f"mindspeed.python is {value}, but there is no such program; write the path of a "
            f"Python {version}, such as /usr/bin/python{version}."
        )
    path = Path(path).absolute()
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    found = environment.run([str(path), "-c", code], f"asking {value} for its version").strip()
    if found != version:
        raise UserError(
            f"mindspeed.python is {value}, which is Python {found}; MindSpeed-MM 2.0.0 wants "
            f"Python {version}: write the path of one."
        )
    return path


def packages(python: Path, home: Path | None = None, stand_in: Path | None = None) -> Packages:
    """What is installed, looked up and not imported, as the framework's own programs see it."""
    told = _ask(python, ["packages", *MODULES], home, stand_in)
    found = {normalized(name): entry for name, entry in told["packages"].items()}
    return Packages(
        python=told["python"],
        versions={name: entry["version"] for name, entry in found.items()},
        damaged={name: entry["damaged"] for name, entry in found.items() if entry["damaged"]},
        urls={name: entry["url"] for name, entry in found.items() if entry["url"]},
        places=told["places"],
    )


def imports(
    python: Path,
    modules: Sequence[str],
    home: Path,
    stand_in: Path | None,
    set_env: Path | None,
    variables: Mapping[str, str] | None = None,
) -> tuple[dict[str, str | None], int | None]:
    """Import modules in order: why each can't be, or None; and the NPUs that torch_npu sees."""
    told = _ask(python, ["imports", *modules], home, stand_in, set_env, variables or {})
    return told["imports"], told["devices"]


def _ask(
    python: Path,
    arguments: Sequence[str],
    home: Path | None,
    stand_in: Path | None,
    set_env: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    command = [str(python), str(Path(probe.__file__).resolve()), *arguments]
    more = {**(variables or {}), "PYTHONDONTWRITEBYTECODE": "1"}
    said = environment.run(
        environment.in_framework(command, home, stand_in, set_env),
        f"asking {python} what it has",
        environ=environment.clean_environment(**more),
    )
    for line in reversed(said.splitlines()):
        if line.startswith(probe.MARK):
            return json.loads(line.removeprefix(probe.MARK))
    raise UserError(f"{python} said nothing that can be read: {said[-300:]!r}")
