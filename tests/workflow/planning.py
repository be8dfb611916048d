"""What a checkout would run, asked in a fork that has Snakemake loaded already.

Each question has a process of its own, which imports the checkout's code and not this
project's, as `python -m snakemake` there would; but it need not import Snakemake again.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

from forking import loaded_forks


@cache
def _forks() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, loaded_forks(), max_tasks_per_child=1)


def asked(checkout: Path, arguments: tuple[str, ...]):
    """The plan of a checkout for some targets and options, and all causes in words."""
    return _forks().submit(_asked, str(checkout), arguments).result(timeout=120)


def _asked(checkout: str, arguments: tuple[str, ...]):
    os.chdir(checkout)
    sys.path.insert(0, str(Path(checkout, "scripts")))
    for name in [name for name in sys.modules if name.split(".")[0] == "mindtune"]:
        del sys.modules[name]
    from mindtune.glue.explain import causes
    from mindtune.glue.plan import plan
    from mindtune.glue.sourcecode import RECORDS, recorded

    found = plan(arguments)
    return found, causes(found, lambda name: found.code.get(name) or recorded(name, RECORDS))
