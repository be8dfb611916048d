"""The sentences that the tests provoke are remembered, for tests/errors/test_catalogue.py."""

import pytest
from errors import recorder

recorder.start()

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
    kept = session.config.cache.get(CACHE, {})
    for pattern, tests in recorder.SEEN.items():
        kept[pattern] = sorted({*kept.get(pattern, []), *tests})
    session.config.cache.set(CACHE, kept)
