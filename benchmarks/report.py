"""How fast is a report of many rows? In a real Chromium.

    python benchmarks/report.py --pictures 1250

Builds the report of a made-up run (four questions a picture), opens it three times, filters and
searches in it, and prints a line of JSON. Exit status 1: slower than 3 s to open, or than
100 ms to filter.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / name) for name in ("scripts", "tests/report", "tests/browser")]

from chromium import Browser, start  # noqa: E402
from finished import build, finished  # noqa: E402

OPENED_S, FILTERED_MS = 3.0, 100.0
# One change of a control, until the browser has laid the page out again.
TIMED = """
const [id, value, event] = arguments;
const control = document.getElementById(id);
const begun = performance.now();
control.value = value;
control.dispatchEvent(new Event(event));
document.body.getBoundingClientRect();
return performance.now() - begun;
"""
CHANGES = (
    ("verdict", "worse", "change"),
    ("verdict", "", "change"),
    ("family", "feature", "change"),
    ("search", "drink", "input"),
    ("search", "", "input"),
    ("sort", "gain", "change"),
    ("sort", "longest", "change"),
)


def opened(browser: Browser, page: Path) -> float:
    """Seconds until the page has loaded and its gallery is filled."""
    begun = time.perf_counter()
    browser.driver.get(page.as_uri())
    if not browser.driver.execute_script(
        "return document.getElementById('gallery').children.length"
    ):
        raise RuntimeError("the gallery is empty")
    return time.perf_counter() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=1250, help="pictures, four rows each")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        begun = time.perf_counter()
        root = finished(Path(place), given.pictures)
        made = time.perf_counter()
        page = build(root)
        built = time.perf_counter() - made
        browser = start(Path(place) / "profile")
        try:
            openings = [opened(browser, page) for _ in range(3)]
            changes = {
                f"{name}={value}": browser.driver.execute_script(TIMED, name, value, event)
                for name, value, event in CHANGES
            }
        finally:
            browser.driver.quit()
        found = {
            "rows": 4 * given.pictures + 1,
            "megabytes": round(page.stat().st_size / 1e6, 2),
            "fixture_s": round(made - begun, 1),
            "build_s": round(built, 1),
            "open_s": [round(seconds, 2) for seconds in openings],
            "filter_ms": {name: round(ms, 1) for name, ms in changes.items()},
        }
    print(json.dumps(found))
    return int(max(openings) > OPENED_S or max(changes.values()) > FILTERED_MS)


if __name__ == "__main__":
    sys.exit(main())
