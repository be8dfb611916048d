"""A real Chromium, without a window, that tells every request and every message."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPORT = Path(__file__).parents[2] / "results/report.html"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
)  # fmt: skip


class Browser:
    """Selenium's driver, with what a test wants to know of a page."""

    def __init__(self, driver) -> None:
        self.driver = driver

    def open(self, path: Path, width: int = 1280, height: int = 900) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self.driver.get(path.resolve().as_uri())

    def color_scheme(self, name: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": name}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def messages(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses that were asked for, other than the page itself and data: ones."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith(("data:", "file:"))]

    def faults(self, axe: Path) -> list[str]:
        """What axe-core finds against WCAG 2.2 AA and its own best practices."""
        self.driver.execute_script(axe.read_text(encoding="utf-8"))
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run(document).then(r => done(r.violations));"
        )
        return [
            f"{fault['id']}: {fault['help']}: {node['html'][:200]} {node.get('failureSummary', '')}"
            for fault in found
            for node in fault["nodes"]
        ]

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(path))


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Browser]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("BROWSER TESTS NOT RUN: there is no chromium, or no chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield Browser(started)
    started.quit()


@pytest.fixture(scope="session")
def axe() -> Path:
    path = Path(os.environ.get("AXE_CORE", ""))
    if not path.is_file():
        pytest.skip(
            "ACCESSIBILITY NOT CHECKED: tests/browser/install.sh fetches axe-core; set AXE_CORE"
        )
    return path


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Callable[..., Path]:
    """Builds a report of a run that never was."""
    from finished import build, finished

    def make(name: str, **options) -> Path:
        root = finished(tmp_path_factory.mktemp(name), **options)
        return build(root, options.get("experiments", ("baseline",)))

    return make


@pytest.fixture(scope="session", params=["made up", "real"])
def page(request, made) -> Path:
    """The page of a made-up run, and that of the real one where there is one."""
    if request.param == "real":
        if not REPORT.is_file():
            pytest.skip("THE REAL RUN'S REPORT NOT TESTED: first run snakemake results/report.html")
        return REPORT
    return made("page", pictures=20, hostile=True)
