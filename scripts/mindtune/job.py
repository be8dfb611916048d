"""Running a script as a job of Snakemake: its log, its exit, and its user's mistakes.

This is the only module that knows the `snakemake` object that Snakemake puts into a script;
everything below a script's `main` takes plain values.
"""

import errno
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from mindtune.errors import UserError

log = logging.getLogger("mindtune")


def optional_path(file: Any) -> Path | None:
    """The path of an input that a rule may have none of."""
    return Path(file) if file else None


def run(snakemake: Any, main: Callable[[Any], None]) -> None:
    """Run `main(snakemake)`: log to the rule's log file and to the terminal.

    A mistake of the user's ends the job with its sentence and exit status 1; anything else
    that goes wrong leaves its traceback in the log file and a sentence that points there.
    """
    path = snakemake.log[0]
    to_file = logging.FileHandler(path, mode="w", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setFormatter(logging.Formatter(f"{snakemake.rule}: %(message)s"))
    # What a program prints by the thousand lines is for the file alone.
    to_terminal.addFilter(lambda record: not getattr(record, "quiet", False))
    log.setLevel(logging.INFO)
    log.handlers[:] = [to_file, to_terminal]
    log.propagate = False
    try:
        main(snakemake)
    except UserError as error:
        _stop(str(error))
    except OSError as error:
        if error.errno not in _SENTENCES:
            _report(path, to_file)
        where = f" ({error.filename})" if error.filename else ""
        _stop(_SENTENCES[error.errno] + where)
    except Exception:
        _report(path, to_file)


_SENTENCES = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "your disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; use a checkout that you may write to",
    errno.EACCES: "permission is denied; mend the permissions and run the same command again",
}


def _stop(sentence: str) -> NoReturn:
    log.error("%s", sentence)
    sys.exit(1)


def _report(path: str, to_file: logging.Handler) -> NoReturn:
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, traceback.format_exc(), (), None)
    to_file.handle(record)
    kind, error, _ = sys.exc_info()
    to_file.flush()
    log.error("stopped by an error of the program (%s: %s); see %s", kind.__name__, error, path)
    sys.exit(1)
