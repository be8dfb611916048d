"""Processes that are forked from a server which has everything loaded already.

A test session has one such server, and what it loads is settled when it starts: hence one list
for all tests.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

LOADED = (
    "jsonschema", "pandas", "pydantic", "pulp", "requests", "snakemake.cli", "snakemake.api",
    "snakemake.parser", "snakemake.report.html_reporter", "snakemake.executors.dryrun",
    "sources.test_download",
)  # fmt: skip


ROOT = Path(__file__).parents[1]
# What pytest finds and a checkout's Snakemake must not.
OURS = {str(ROOT), str(ROOT / "scripts"), *map(str, (ROOT / "tests", *(ROOT / "tests").iterdir()))}


@cache
def loaded_forks() -> ForkServerContext:
    """The context whose processes start loaded; the server finds what pytest finds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LOADED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, sys.path)))
        forkserver.ensure_running()
    return context


def snakemake(place: Path, arguments: Sequence[str], seconds: float) -> tuple[int, str]:
    """What `python -m snakemake ARGUMENTS` in a directory returns and prints, begun from a fork.

    It spares the second and a half in which Snakemake is imported. What it starts has processes and
    imports of its own, as always.

    Raises
    ------
    TimeoutError: it took longer, and is killed with all that it started.
    """
    with tempfile.NamedTemporaryFile() as output:
        given = (str(place), list(arguments), dict(os.environ), output.name)
        process = loaded_forks().Process(target=_snakemake, args=given)
        process.start()
        process.join(seconds)
        if process.exitcode is None:
            os.killpg(process.pid, signal.SIGKILL)
            raise TimeoutError(f"snakemake {arguments} took longer than {seconds} s")
        return process.exitcode, Path(output.name).read_text(encoding="utf-8", errors="replace")


def _snakemake(place: str, arguments: list[str], environment: dict[str, str], output: str) -> None:
    os.setsid()
    for stream, name in enumerate((os.devnull, output, output)):
        os.dup2(os.open(name, os.O_RDWR | os.O_APPEND), stream)
    os.chdir(place)
    os.environ.clear()
    os.environ.update(environment)
    for name in [name for name in sys.modules if name.split(".")[0] == "mindtune"]:
        del sys.modules[name]
    sys.path[:] = [place, *(path for path in sys.path if path not in OURS)]
    from snakemake import cli

    sys.argv = [str(Path(cli.__file__).with_name("__main__.py")), *arguments]
    cli.main()
