"""Processes that are forked from a server which has everything loaded already.

A test session has one such server, and what it loads is settled when it starts: hence one list
for all tests.
"""

import multiprocessing
import os
import sys
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

import pytest

LOADED = (
    "jsonschema", "pandas", "pydantic", "pulp", "requests", "snakemake.cli", "snakemake.api",
    "snakemake.parser", "snakemake.report.html_reporter", "snakemake.executors.dryrun",
    "sources.test_download",
)  # fmt: skip


@cache
def loaded_forks() -> ForkServerContext:
    """The context whose processes start loaded; the server finds what pytest finds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LOADED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, sys.path)))
        forkserver.ensure_running()
    return context
