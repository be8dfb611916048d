"""The table of what was compared with the real mm-convert, at the end of pytest's output."""

import pytest

_ROWS = pytest.StashKey[list[tuple[str, ...]]]()


@pytest.fixture
def table(request) -> list[tuple[str, ...]]:
    """Rows (layout, kind of model, to Megatron, to Hugging Face) of the table; append to it."""
    return request.config.stash.setdefault(_ROWS, [])


def pytest_terminal_summary(terminalreporter, config) -> None:
    """Print the table, if there is one."""
    rows = config.stash.get(_ROWS, [])
    if rows:
        terminalreporter.section("compared with mm-convert")
        for row in [("layout", "model", "hf-to-mm, all ranks", "mm-to-hf"), ("---",) * 4, *rows]:
            terminalreporter.write_line("| " + " | ".join(row) + " |")
