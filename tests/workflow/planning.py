"""What a checkout would run, asked in a fork that has Snakemake loaded already.

Each question has a process of its own, which imports the checkout's code and not this
project's, as `python -m snakemake` there would; but it need not import Snakemake again.
"""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

LOADED = (
    "jsonschema", "pandas", "pulp", "requests", "snakemake.cli", "snakemake.api",
    "snakemake.parser", "snakemake.report.html_reporter", "snakemake.executors.dryrun",
)  # fmt: skip


@cache
def _forks() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LOADED))
    return ProcessPoolExecutor(1, context, max_tasks_per_child=1)


def asked(checkout: Path, arguments: tuple[str, ...]):
    """The plan of a checkout for some targets and options, and all causes in words."""
    return _forks().submit(_asked, str(checkout), arguments).result(timeout=120)


def _asked(checkout: str, arguments: tuple[str, ...]):
    os.chdir(checkout)
    sys.path.insert(0, str(Path(checkout, "scripts")))
    from mindtune.dryrun import plan
    from mindtune.explain import causes
    from mindtune.sourcecode import RECORDS, recorded

    found = plan(arguments)
    return found, causes(found, lambda name: found.code.get(name) or recorded(name, RECORDS))
