"""Running programs of the framework's Python: with nothing of our own Python around them."""

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mindtune.errors import UserError

log = logging.getLogger(__name__)

# What would let one Python's packages into another, or pip's into another place.
LEAKS = (
    "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONEXECUTABLE",
    "PYTHONPLATLIBDIR", "VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "CONDA_PREFIX", "CONDA_DEFAULT_ENV",
    "__PYVENV_LAUNCHER__", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV",
    "PIP_NO_DEPS", "PIP_CONSTRAINT", "PIP_REQUIREMENT",
)  # fmt: skip
TAIL = 20


def clean_environment(environ: Mapping[str, str] = os.environ, **more: str) -> dict[str, str]:
    """The environment without any Python's own: no search paths, no active environment.

    The active environment's programs leave PATH as well. `more` is added.
    """
    active = [environ[key] for key in ("VIRTUAL_ENV", "CONDA_PREFIX") if environ.get(key)]
    programs = {str(Path(place, "bin")) for place in active}
    kept = {key: value for key, value in environ.items() if key not in LEAKS}
    path = [part for part in environ.get("PATH", os.defpath).split(":") if part not in programs]
    return {**kept, "PATH": ":".join(path), "PYTHONNOUSERSITE": "1", **more}


def python_path(home: Path, stand_in: Path | None) -> str:
    """PYTHONPATH of the framework: the stand-in before everything, then its own roots."""
    places = [*([stand_in] if stand_in else []), home, home / "MindSpeed"]
    return ":".join(str(place) for place in places)


def in_framework(
    command: Sequence[str], home: Path | None, stand_in: Path | None, set_env: Path | None
) -> list[str]:
    """The command, run with CANN's variables, and with the framework's places on PYTHONPATH.

    They come before those of CANN's script, by which CANN's own Python packages are found. A
    stand-in does nothing without its variable.
    """
    path = "" if home is None else python_path(home, stand_in)
    if stand_in is not None:
        command = ["env", "MINDTUNE_STANDIN=1", *command]
    script = (
        'if [ -n "$0" ]; then source "$0" >/dev/null || exit 1; fi; '
        'if [ -n "$1" ]; then export PYTHONPATH="$1${PYTHONPATH:+:$PYTHONPATH}"; fi; '
        'shift; exec "$@"'
    )
    return ["bash", "-c", script, "" if set_env is None else str(set_env), path, *command]


def run(
    command: Sequence[str],
    what: str,
    *,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
    line: Callable[[str], None] = lambda text: None,
) -> str:
    """Run a program to its end and return all it said; it ends when this process does.

    what: what it does, for the sentence when it fails. line: called with each line it says.

    Raises
    ------
    UserError: it failed, or can't be started; the last lines are in the message.
    """
    log.debug("%s", command)
    try:
        with subprocess.Popen(  # noqa: S603
            [*command], cwd=cwd, env=dict(environ or clean_environment()), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            errors="replace", preexec_fn=_end_with_parent,
        ) as process:  # fmt: skip
            said = []
            for text in process.stdout:
                said.append(text)
                line(text.rstrip())
    except OSError as error:
        raise UserError(f"{what} failed: {command[0]} can't be run ({error.strerror}).") from error
    if process.returncode:
        last = "".join(f"\n    {text.rstrip()}" for text in said[-TAIL:])
        raise UserError(f"{what} failed (exit status {process.returncode}). Its last lines:{last}")
    return "".join(said)


def _end_with_parent() -> None:
    """A killed job must not leave a pip that goes on writing (on Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
