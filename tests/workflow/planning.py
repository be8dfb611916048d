"""What a checkout would run, asked in a fork that has Snakemake and the checkout's code loaded already.

Each question has a process of its own, as `python -m snakemake` there would have; but it need not
import anything again, nor read which file imports which, as long as no file of code is another.
"""

import multiprocessing
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from forking import loaded


def asked(checkout: Path, arguments: tuple[str, ...]):
    """The plan of a checkout for some targets and options, and all causes in words."""
    return loaded(checkout).submit(_answer, arguments).result(timeout=120)


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
    sys.path.insert(0, str(Path("scripts").absolute()))
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
