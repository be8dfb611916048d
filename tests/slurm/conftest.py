"""A Slurm that runs while these tests do."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lacking import lacking
from slurm import cluster


@pytest.fixture(scope="session")
def slurm(tmp_path_factory) -> Iterator[None]:
    """Start a Slurm, or skip: nothing is installed from here."""
    if why := cluster.unavailable():
        lacking(f"SLURM TESTS NOT RUN: {why}")
    # A path of its own and a short one: munge's socket may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    state = folder / "state"
    try:
        cluster.start(state)
        yield
    finally:
        cluster.stop(state)
        cluster.kill_stragglers(tmp_path_factory.getbasetemp())
        shutil.rmtree(folder)
