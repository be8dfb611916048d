"""Pages to test, and a browser to test them in."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lacking import lacking

ROOT = Path(__file__).parents[2]
REPORT = Path(os.environ.get("MINDTUNE_REPORT", ROOT / "results/report.html"))


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator:
    chromium = pytest.importorskip(
        "chromium", reason="BROWSER TESTS NOT RUN: selenium is not installed", exc_type=ImportError
    )
    if absent := chromium.missing():
        lacking(f"BROWSER TESTS NOT RUN: there is no {' and no '.join(absent)}")
    started = chromium.start(tmp_path_factory.mktemp("profile"))
    yield started
    started.driver.quit()


@pytest.fixture(scope="session")
def axe() -> Path:
    path = Path(os.environ.get("AXE_CORE", ROOT / "build/axe/axe.min.js"))
    if not path.is_file():
        lacking("ACCESSIBILITY NOT CHECKED: fetch axe-core with tests/browser/install.sh")
    return path


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Callable[..., Path]:
    """Builds a report of a run that never was."""
    from finished import build, finished

    def make(name: str, **options) -> Path:
        language = options.pop("language", "en")
        root = finished(tmp_path_factory.mktemp(name), **options)
        return build(root, options.get("experiments", ("baseline",)), language)

    return make


@pytest.fixture(scope="session", params=["made up", "Chinese", "real"])
def page(request, made) -> Path:
    """The page of a made-up run in both languages, and that of the real one where there is one."""
    if request.param == "real":
        if not REPORT.is_file():
            pytest.skip("no report of a real run yet: first run snakemake --cores 1 all")
        return REPORT
    language = "zh" if request.param == "Chinese" else "en"
    return made(f"page-{language}", pictures=20, hostile=True, language=language)
