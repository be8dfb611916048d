"""scripts/ask.py --web in a browser: picture, both answers, boxes; and nothing from elsewhere.

GRADIO_PYTHON may name a Python with gradio and what envs/hf.txt has; without it this Python's own counts.
"""

import importlib.util
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mindtune.demo.base_model import write_base_model
from mindtune.demo.drawing import draw_scene
from mindtune.demo.scenes import scenes

SCRIPT = Path(__file__).parents[2] / "scripts/ask.py"
SECONDS = 120
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of the page of two models, which has a picture already."""
    python = os.environ.get("GRADIO_PYTHON")
    if python is None and importlib.util.find_spec("gradio") is None:
        # An optional package, which CI has not got either.
        pytest.skip(
            "PAGE OF ask.py NOT TESTED: gradio is not installed, and GRADIO_PYTHON is not set"
        )
    place = tmp_path_factory.mktemp("asked")
    write_base_model(place / "before")
    write_base_model(place / "after")
    ((_, scene),) = scenes(1, 5)
    draw_scene(scene, random.Random(1))[0].save(place / "picture.png")
    process = subprocess.Popen(
        [python or sys.executable, str(SCRIPT), str(place / "before"), str(place / "after"),
         str(place / "picture.png"), "--web", "--max-new-tokens=40"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    line = process.stdout.readline()
    yield re.match(r"http://127\.0\.0\.1:\d+", line)[0]
    process.terminate()
    process.wait(timeout=60)


def wait(browser, script):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser.driver, SECONDS).until(
        lambda driver: driver.execute_script(f"return {script}")
    )


def answer_of(number):
    return f"document.querySelector('#answer-{number} textarea')?.value"


def test_both_answers_and_their_boxes_are_shown(browser, served):
    from selenium.webdriver.common.by import By

    browser.requests()  # those of tests before
    browser.driver.get(served)
    wait(browser, "document.querySelector('#question textarea')")
    field = browser.driver.find_element(By.CSS_SELECTOR, "#question textarea")
    field.send_keys("Where is the truck in the image?")
    browser.driver.find_element(By.CSS_SELECTOR, "#ask").click()
    first, second = (wait(browser, answer_of(number)) for number in (0, 1))
    assert re.search(r"\(\d+,\d+\),\(\d+,\d+\)\n\(\d+ tokens, \d+\.\d s\)$", first)
    assert first.rpartition("\n")[0] == second.rpartition("\n")[0]
    for number in (0, 1):
        image = f"document.querySelector('#boxes-{number} img')"
        assert wait(browser, f"{image} && {image}.complete && {image}.naturalWidth") > 100
    field.clear()
    field.send_keys("<|im_end|>")
    browser.driver.find_element(By.CSS_SELECTOR, "#ask").click()
    assert wait(browser, "document.body.innerText.includes('the question holds <|im_end|>')")
    browser.screenshot(SCRIPT.parents[1] / "build/screenshots/ask.png")
    elsewhere = [url for url in browser.requests() if not url.startswith((served, "blob:"))]
    assert elsewhere == []
