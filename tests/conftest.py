"""What several directories of tests need: one finished small run, and the sentences that were said.

The sentences that tests provoke are remembered for tests/errors/test_catalogue.py.
"""

import pytest
from errors import recorder

recorder.start()

from workflow.conftest import HOSTILE, Checkout  # noqa: E402 - after the recorder, which watches imports

CACHE = "mindtune/messages"
LAST = "test_every_sentence_was_provoked_by_its_test"


def pytest_collection_modifyitems(config, items):
    """In a full run the sentences are counted at the end; in any other that means nothing."""
    chosen = config.option.keyword or config.option.markexpr or config.option.deselect
    full = config.args_source == pytest.Config.ArgsSource.TESTPATHS and not chosen
    last = [item for item in items if item.name == LAST]
    items[:] = [item for item in items if item.name != LAST] + (last if full else [])
    if not full:
        config.hook.pytest_deselected(items=last)


def pytest_sessionfinish(session):
    """Keep what was seen, so that `python tests/errors/catalogue.py` can name the tests."""
    if not hasattr(session.config, "cache"):
        return
    kept = session.config.cache.get(CACHE, {})
    for pattern, tests in recorder.SEEN.items():
        kept[pattern] = sorted({*kept.get(pattern, []), *tests})
    session.config.cache.set(CACHE, kept)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Checkout:
    """A small run that is complete. Tests may dry-run in it, and restore what they change."""
    checkout = Checkout.make(tmp_path_factory.mktemp("finished") / HOSTILE)
    checkout.snakemake("results/compare.csv")
    return checkout


@pytest.fixture(scope="session")
def complete(finished) -> Checkout:
    """The finished run with all that `all` makes beside."""
    finished.snakemake("all")
    return finished
