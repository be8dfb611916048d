"""What a checkout would run, asked in a fork that has Snakemake and the checkout's code loaded already.

Each question has a process of its own, as `python -m snakemake` there would have; but it need not
import anything again, nor read which file imports which, as long as no file of code is another.
"""

import hashlib
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path

from forking import loaded_forks, without_ours


def asked(checkout: Path, arguments: tuple[str, ...]):
    """The plan of a checkout for some targets and options, and all causes in words."""
    code = hashlib.sha256()
    for path in sorted(checkout.glob("scripts/**/*.py")):
        code.update(bytes(path) + b"\0" + path.read_bytes())
    return _loaded(checkout, code.digest()).submit(_answer, arguments).result(timeout=120)


@lru_cache(maxsize=3)
def _loaded(checkout: Path, code: bytes) -> ProcessPoolExecutor:
    """A process that has the code of a checkout loaded, for as long as it is one of the last three."""
    return ProcessPoolExecutor(1, loaded_forks(), initializer=_load, initargs=(str(checkout),))


def _load(checkout: str) -> None:
    os.chdir(checkout)
    without_ours(str(Path(checkout, "scripts")))
    from mindtune.glue import plan, sourcecode  # noqa: F401 - for the forks
    from mindtune.glue.settings_reading import read_configuration  # noqa: F401
    from snakemake.cli import get_argument_parser

    get_argument_parser()  # looks for plugins
    sourcecode.code_files(*Path("scripts").glob("*.py"))


def _answer(arguments: tuple[str, ...]):
    """The answer of a fork of this process."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    if not os.fork():
        _send(theirs, arguments)
    theirs.close()
    answer = ours.recv()
    os.wait()
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _send(answers: Connection, arguments: tuple[str, ...]) -> None:
    try:
        from mindtune.glue.explain import causes
        from mindtune.glue.plan import plan
        from mindtune.glue.sourcecode import RECORDS, recorded

        found = plan(arguments)
        said = causes(found, lambda name: found.code.get(name) or recorded(name, RECORDS))
        answers.send((found, said))
    except BaseException as error:
        answers.send(error)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
