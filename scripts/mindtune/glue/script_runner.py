"""Running a script as a job of Snakemake: its log, its exit, and its user's mistakes.

This is the only module that knows the `snakemake` object that Snakemake puts into a script;
everything below a script's `main` takes plain values.
"""

import errno
import logging
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from mindtune.errors import UserError
from mindtune.glue.clock import refuse_future
from mindtune.glue.locks import Held, held
from mindtune.glue.made import forget, keep
from mindtune.process import Stopped, end_with_snakemake, named, signal_in, stoppable

log = logging.getLogger("mindtune")

# A helper process of a killed job notices within five seconds that it is alone.
SECONDS_FOR_OTHERS = 30.0


def optional_path(file: Any) -> Path | None:
    """The path of an input that a rule may have none of."""
    return Path(file) if file else None


def typed(name: str, plain: Mapping[str, Any]) -> Any:
    """A section of the configuration, as `train` or `sources.download`, of a script's plain settings."""
    # Imported so that its code is in no hash: how a key is described changes no result.
    return import_module("mindtune.settings.typed").typed(name, plain)


def run(snakemake: Any, main: Callable[[Any], None]) -> None:
    """Run `main(snakemake)`: log to the rule's log file and to the terminal.

    A user's mistake ends the job with its sentence and exit status 1; anything else
    that goes wrong leaves its traceback in the log file and a sentence that points there.
    SIGTERM and Ctrl-C end it with 128 + the signal's number, when it has tidied up; and it
    ends itself when Snakemake is gone.
    """
    came: list[int] = []
    path = Path(snakemake.log[0])
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setFormatter(logging.Formatter(f"{snakemake.rule}: %(message)s"))
    # What a program prints by the thousand lines is for the file alone.
    to_terminal.addFilter(lambda record: not getattr(record, "quiet", False))
    log.setLevel(logging.INFO)
    log.handlers[:] = [to_terminal]
    log.propagate = False
    try:
        with stoppable() as came, _alone(path):
            log.addHandler(_file_handler(path))
            end_with_snakemake()
            refuse_future(_inputs(snakemake))
            _check_code(snakemake)
            outputs, inputs = (getattr(snakemake, kind, ()) for kind in ("output", "input"))
            forget(outputs)
            main(snakemake)
            keep(snakemake.rule, outputs, getattr(snakemake, "params", ()), inputs)
    except UserError as error:
        _stop(str(error))
    except Stopped:
        _stop_by(signal.SIGTERM)
    except KeyboardInterrupt:
        _stop_by(signal.SIGINT)
    except OSError as error:
        said = sentence(error)
        if said is None:
            _explain(error, came, snakemake)
        _stop(said + (f" ({error.filename})" if error.filename else ""))
    except Exception as error:
        _explain(error, came, snakemake)


def _explain(error: Exception, came: list[int], snakemake: Any) -> NoReturn:
    """End a job with what lies behind an exception: a signal, an input that is gone, or the program."""
    number = came[0] if came else signal_in(error)
    if number == signal.SIGTERM:
        _stop_by(number)
    if number:
        _traceback_to_file()
        _stop(
            f"a process of this job was ended by {named(number)}"
            + ("; give the job more" if number == signal.SIGKILL else "")
            + "; run the same command again"
        )
    gone = [path for path in _inputs(snakemake) if not path.exists()]
    if gone:
        _traceback_to_file()
        _stop(f"{gone[0]} was removed while this ran; put it back and run the same command again")
    _report(Path(snakemake.log[0]))


def _stop_by(number: int) -> NoReturn:
    _stop(f"stopped by {named(number)}; the same command resumes from here", 128 + number)


def _check_code(snakemake: Any) -> None:
    """
    Raises
    ------
    UserError: the job was submitted with other code than that which is here now.
    """
    operation = getattr(snakemake, "config", {}).get("operation", {})
    changed = operation.get("changed_code")
    if changed and (said := changed.get(snakemake.params.get("code"))):
        raise UserError(said)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a job: what a killed run left running is waited for."""
    try:
        with held(
            path.with_name(f".{path.name}.lock"),
            SECONDS_FOR_OTHERS,
            lambda other: log.info("waiting for what an earlier run left running (%s)", other),
        ):
            yield
    except Held as other:
        raise UserError(
            f"an earlier run's job still works on the same files ({other}); stop it or wait until it "
            "ends, and run the same command again."
        ) from None


def _file_handler(path: Path) -> logging.Handler:
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    # On a full disk logging would print a traceback for each line that can't be written.
    handler.handleError = lambda record: None
    return handler


def _inputs(snakemake: Any) -> Iterator[Path]:
    yield from map(Path, getattr(snakemake, "input", ()))


def sentence(error: OSError) -> str | None:
    """What to say of an error of the machine's that its user can fix; None of another one."""
    match error.errno:
        case errno.ENOSPC:
            return "the disk is full; free some space and run the same command again"
        case errno.EDQUOT:
            return "your disk quota is used up; free some space and run the same command again"
        case errno.EROFS:
            return "the file system is read-only; use a checkout that you may write to"
        case errno.EACCES:
            return "permission is denied; fix the permissions and run the same command again"
    return None


def _stop(said: str, status: int = 1) -> NoReturn:
    log.error("%s", said)
    sys.exit(status)


def _traceback_to_file() -> None:
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, traceback.format_exc(), (), None)
    for handler in log.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
            handler.flush()


def _report(path: Path) -> NoReturn:
    _traceback_to_file()
    kind, error, _ = sys.exc_info()
    log.error("stopped by an error of the program (%s: %s); see %s", kind.__name__, error, path)
    sys.exit(1)
