"""What several directories of tests need: one finished small run; and how tests share processes."""

import os
import signal

import pytest
from filelock import FileLock
from lacking import NOTHING_SKIPPED
from mindtune.demo.base_model import write_base_model
from workflow.conftest import HOSTILE, Checkout

# A shell that starts pytest in the background (nohup, some CI systems) ignores SIGINT, and what
# pytest starts would inherit that: the tests that interrupt a run need it to be as usual.
signal.signal(signal.SIGINT, signal.default_int_handler)
# As a job with one core has it; with `-n` the threads of all processes would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _outlives_the_jobs_that_it_stops():
    """A job that is stopped has some seconds to end; one that ran in here does not end with that."""
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the long proofs too, as CI does")


# Begun first, for they take longest; everything else fills the gaps. The very first needs no finished
# run, which another process makes meanwhile.
LONG = (
    "tests/workflow/test_broken_off.py",
    "tests/slurm/",
    "tests/workflow/",
    "tests/conformance/",
)
# Files whose tests share no fixture that is dear, so that each may go to any process.
SPREAD = ("tests/workflow/test_kill.py",)


def pytest_collection_modifyitems(config, items):
    """The long tests first, so that no process is left alone with one at the end."""

    def place(item):
        return next((n for n, begin in enumerate(LONG) if item.nodeid.startswith(begin)), len(LONG))

    items.sort(key=place)
    if not config.getoption("--long") and not os.environ.get(NOTHING_SKIPPED):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(
                    pytest.mark.skip(
                        reason="A LONG PROOF, NOT RUN: python -m pytest -n auto --long"
                    )
                )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `-n`: a file's tests run in one process, in their order, but for those of `SPREAD`."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if nodeid.startswith(SPREAD) else super()._split_scope(nodeid)

    config.option.loadscopereorder = False  # xdist's own order goes by the number of tests
    return Scheduling(config, log)


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """The demo's base model. Tests copy what they change."""
    directory = tmp_path_factory.mktemp("base") / "Qwen2-VL-demo"
    write_base_model(directory)
    return directory


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Checkout:
    """A small run that is complete. Tests may dry-run in it, and restore what they change.

    With `-n` one process makes it, and each gets a copy of its own.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent / "finished" if os.environ.get("PYTEST_XDIST_WORKER") else own / "finished"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            made = Checkout.make(own / "making" / HOSTILE)
            made.snakemake("results/compare.csv")
            made.path.parent.rename(shared)
    return Checkout(shared / HOSTILE).without(own / "small run" / HOSTILE)


@pytest.fixture(scope="session")
def complete(finished) -> Checkout:
    """The finished run with all that `all` makes beside."""
    finished.snakemake("all")
    return finished
