"""Processes that are forked from a server which has everything loaded already.

A test session has one such server, and what it loads is settled when it starts: hence one list
for all tests. Snakemake takes a second and a half to be imported, and a job that trains or answers
five seconds of the processor, which is most of what the small models of the tests cost.

What is true of processes of their own is not shown by a fork; tests/workflow/test_kill.py,
test_demo.py and CI, which runs the demo by the README's command, start such processes.
"""

import atexit
import hashlib
import multiprocessing
import os
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, lru_cache
from importlib import import_module
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

LOADED = (
    "jinja2", "jsonschema", "matplotlib.backends.backend_svg", "matplotlib.figure",
    "matplotlib.font_manager", "pandas", "pulp", "pydantic", "requests", "rouge_score.rouge_scorer",
    "sacrebleu.metrics", "safetensors.torch", "snakemake.api", "snakemake.cli",
    "snakemake.executors.dryrun", "snakemake.parser", "snakemake.report.html_reporter",
    "sources.test_download", "torch.utils.data", "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl", "transformers.models.qwen2_vl.modeling_qwen2_vl",
    "transformers.models.qwen3_vl.modeling_qwen3_vl", "transformers.trainer", "workflow.planning",
)  # fmt: skip


ROOT = Path(__file__).parents[1]
# What pytest finds and a checkout's Snakemake must not.
OURS = {str(ROOT), str(ROOT / "scripts"), *map(str, (ROOT / "tests", *(ROOT / "tests").iterdir()))}


@cache
def loaded_forks() -> ForkServerContext:
    """The context whose processes start loaded; the server finds what pytest finds.

    Its libraries have one thread each, as those of a job with one core.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LOADED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, sys.path)))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("OPENBLAS_NUM_THREADS", "1")
        forkserver.ensure_running()
    return context


def snakemake(place: Path, arguments: Sequence[str], seconds: float) -> tuple[int, str]:
    """What `python -m snakemake ARGUMENTS` in a directory returns and prints, begun from a fork.

    So are the scripts that it runs; what those start has processes and imports of its own.

    Raises
    ------
    TimeoutError: it took longer, and is killed with all that it started.
    """
    status, said, _ = _forked(_snakemake, place, arguments, seconds, together=True)
    return status, said


def script(
    place: Path, name: str, arguments: Sequence[str], seconds: float = 300
) -> tuple[int, str, str]:
    """The status, output and errors of `python NAME ARGUMENTS` in a directory, begun from a fork."""
    return _forked(_program, place, (name, *arguments), seconds)


def _forked(
    run, place: Path, arguments: Sequence[str], seconds: float, together: bool = False
) -> tuple[int, str, str]:
    """together: errors go to where output goes."""
    with tempfile.TemporaryDirectory() as scratch:
        streams = [Path(scratch, name) for name in ("out", "out" if together else "errors")]
        given = (run, list(arguments), dict(os.environ), list(map(str, streams)), seconds)
        status = loaded(place).submit(_run, *given).result()
        if status is None:
            raise TimeoutError(f"{arguments} took longer than {seconds} s")
        said = (stream.read_text(encoding="utf-8", errors="replace") for stream in streams)
        return status, *said


def loaded(place: Path) -> ProcessPoolExecutor:
    """A process in a checkout that has the code there loaded, for its tasks to fork from."""
    code = hashlib.sha256()
    for path in sorted(place.glob("scripts/**/*.py")):
        code.update(bytes(path) + b"\0" + path.read_bytes())
    return _loaded(place, code.digest())


@lru_cache(maxsize=3)
def _loaded(place: Path, code: bytes) -> ProcessPoolExecutor:
    """For as long as it is one of the last three. code: with another, it is another process."""
    return ProcessPoolExecutor(1, loaded_forks(), initializer=_load, initargs=(str(place),))


def _load(place: str) -> None:
    """Import what Snakemake, jobs and tools begin with, and see which file imports which."""
    multiprocessing.set_start_method(None, force=True)  # as if nobody had forked this from a server
    os.chdir(place)
    for name in [name for name in sys.modules if name.split(".")[0] == "mindtune"]:
        del sys.modules[name]
    others = [path for path in sys.path if path not in OURS]
    sys.path[:] = [str(Path(place, "scripts")), *others]
    if Path("scripts/mindtune").is_dir():
        import_module("mindtune.glue.settings_reading")
        import_module("mindtune.glue.plan")
        sourcecode = import_module("mindtune.glue.sourcecode")
        sourcecode.code_files(*Path("scripts").glob("*.py"))
    import_module("snakemake.cli").get_argument_parser()  # looks for plugins
    sys.path[0] = place


def _run(run, arguments: list[str], environment: Mapping, streams: list[str], seconds: float):
    """Run in a fork of this process; its exit status, or None where it took too long."""
    pid = os.fork()
    if not pid:
        try:
            os.setsid()
            for number, name in enumerate((os.devnull, *streams)):
                os.dup2(os.open(name, os.O_RDWR | os.O_APPEND | os.O_CREAT), number)
            _surround(str(Path.cwd()), environment)
            run(arguments)
        except SystemExit as error:
            end(error)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        end(SystemExit(0))
    ended = os.pidfd_open(pid)
    in_time, _, _ = select.select([ended], [], [], seconds)
    os.close(ended)
    if not in_time:
        os.killpg(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status if in_time else None


def _surround(place: str, environment: Mapping[str, str]) -> None:
    os.chdir(place)
    os.environ.clear()
    os.environ.update(environment)


def _snakemake(arguments: list[str]) -> None:
    _fork_scripts()
    from snakemake import cli

    sys.argv = [str(Path(cli.__file__).with_name("__main__.py")), *arguments]
    cli.main()


def _program(arguments: list[str]) -> None:
    """Run a file of Python like `python FILE ARGUMENTS`, and end this process as that would."""
    main = ModuleType("__main__")
    main.__file__ = arguments[0]
    sys.modules["__main__"] = main
    sys.argv[:] = arguments
    sys.path[0] = str(Path(arguments[0]).absolute().parent)
    atexit._clear()
    try:
        exec(compile(Path(arguments[0]).read_bytes(), arguments[0], "exec"), vars(main))  # noqa: S102
    except SystemExit as error:
        end(error)
    except BaseException:
        traceback.print_exc()
        end(SystemExit(1))
    end(SystemExit(0))


def end(error: SystemExit) -> NoReturn:
    """End this process as Python does for a SystemExit."""
    if isinstance(error.code, str):
        print(error.code, file=sys.stderr)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(error.code if isinstance(error.code, int) else int(error.code is not None))


def _fork_scripts() -> None:
    """Let the scripts of rules be forks of this process as it is now: loaded, and without threads."""
    ours, theirs = multiprocessing.Pipe()
    if not os.fork():
        ours.close()
        _serve(theirs)
    theirs.close()
    turn = threading.Lock()

    class Popen(subprocess.Popen):
        """As Snakemake's `shell` uses it: a command that runs a script is sent to the server."""

        def __init__(self, command, *arguments, env=None, **options):
            words = shlex.split(command)
            self._forked = words[-2:-1] == [sys.executable] and "/scripts/" in words[-1]
            if not self._forked:
                super().__init__(command, *arguments, env=env, **options)
                return
            turn.acquire()
            ours.send((words[-1], str(Path.cwd()), env))
            self.pid, self.returncode = ours.recv(), None

        def wait(self, timeout=None):
            if self._forked and self.returncode is None:
                self.returncode = ours.recv()
                turn.release()
            return self.returncode if self._forked else super().wait(timeout)

    shell = import_module("snakemake.shell")
    shell.sp = ModuleType("subprocess")
    vars(shell.sp).update(vars(subprocess) | {"Popen": Popen})


def _serve(requests: Connection) -> None:
    """Fork one process for each script that Snakemake wants to run; end with Snakemake."""
    while True:
        try:
            name, place, environment = requests.recv()
        except EOFError:
            os._exit(0)
        pid = os.fork()
        if not pid:
            requests.close()
            _surround(place, environment)
            _program([name])
        requests.send(pid)
        requests.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
