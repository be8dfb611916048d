"""report.html in a real browser."""

import re
from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="BROWSER TESTS NOT RUN: selenium is not installed")

from mindtune.report.words import Words
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

pytestmark = pytest.mark.browser
SHOTS = Path(__file__).parents[2] / "build/screenshots"


def cards(browser) -> list:
    return browser.driver.find_elements(By.CSS_SELECTOR, "#gallery > li")


def choose(browser, name: str, value: str) -> None:
    Select(browser.driver.find_element(By.ID, name)).select_by_value(value)


def counted(browser) -> int:
    return int(browser.driver.find_element(By.ID, "count").text.split()[0])


def said(browser, group: str) -> dict[str, str]:
    """The words of the opened page's language, of a group."""
    language = browser.driver.find_element(By.TAG_NAME, "html").get_attribute("lang")
    return Words(language.split("-")[0]).group(group)


def test_opens_without_a_message_and_without_the_network(browser, page):
    browser.requests(), browser.messages()
    browser.open(page)
    assert cards(browser)
    assert browser.messages() == []
    # chrome:// is what the browser draws its own controls with.
    assert [url for url in browser.requests() if not url.startswith("chrome://")] == []


def test_hostile_answers_are_text(browser, made):
    browser.open(made("hostile", pictures=3, hostile=True))
    answers = browser.driver.find_element(By.ID, "gallery").text
    assert "<script>document.title='pwned'</script>" in answers
    assert "<img src=x onerror=" in answers
    assert browser.driver.title == "What the fine-tuning did · mindtune"
    assert len(browser.driver.find_elements(By.CSS_SELECTOR, "img[src='x']")) == 0


def test_filters_search_and_sort(browser, page):
    browser.open(page)
    everything = counted(browser)
    choose(browser, "split", "named")
    assert 0 < counted(browser) < everything
    assert all("bus" in card.text for card in cards(browser))
    choose(browser, "split", "")
    assert counted(browser) == everything
    choose(browser, "family", "color")
    few = counted(browser)
    assert 0 < few < everything
    assert {card.find_element(By.TAG_NAME, "h3").text.split(" the ")[0] for card in cards(browser)} <= {
        "What is", "What"
    }  # fmt: skip
    choose(browser, "family", "")
    search = browser.driver.find_element(By.ID, "search")
    search.send_keys("DRINK")
    assert 0 < counted(browser) < everything
    assert all("drink" in card.text.lower() for card in cards(browser))
    search.clear()
    search.send_keys("no such words anywhere")
    assert cards(browser) == []
    nothing = browser.driver.find_element(By.ID, "count").text
    assert nothing == said(browser, "script")["nothing_fits"]
    search.clear()
    search.send_keys(Keys.SPACE)
    choose(browser, "sort", "longest")
    lengths = [
        len(card.find_element(By.CSS_SELECTOR, ".said.after p").text) for card in cards(browser)
    ]
    assert lengths == sorted(lengths, reverse=True)


def test_keyboard_opens_turns_and_closes_a_picture(browser, page):
    browser.open(page)
    first = cards(browser)[0].find_element(By.TAG_NAME, "button")
    first.send_keys(Keys.ENTER)
    dialog = browser.driver.find_element(By.ID, "viewer")
    title = browser.driver.find_element(By.ID, "viewer-title")
    assert dialog.get_attribute("open")
    assert title.text == cards(browser)[0].find_element(By.TAG_NAME, "h3").text
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    second = cards(browser)[1].find_element(By.TAG_NAME, "h3")
    assert title.text == second.get_attribute("textContent")
    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not dialog.get_attribute("open")
    assert browser.driver.switch_to.active_element == first


def test_shows_more_on_demand(browser, page):
    browser.open(page)
    before = len(cards(browser))
    button = browser.driver.find_element(By.ID, "more")
    browser.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.send_keys(Keys.ENTER)
    assert len(cards(browser)) > before


def test_marks_the_words_that_the_reference_lacks(browser, made):
    browser.open(made("marks", pictures=3, right=(0.0,)))
    browser.driver.find_element(By.ID, "search").send_keys("No.")
    marks = cards(browser)[0].find_elements(By.CSS_SELECTOR, ".said.after mark")
    assert any("No" in mark.text for mark in marks)
    choose(browser, "split", "named")
    browser.driver.find_element(By.ID, "search").clear()
    browser.driver.find_element(By.ID, "search").send_keys("bus")
    assert cards(browser)[0].find_elements(By.CSS_SELECTOR, ".said.after mark") == []


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_is_accessible(browser, page, axe, width, height, scheme):
    browser.color_scheme(scheme)
    browser.open(page, width, height)
    kind = page.parents[1].name if "pytest" in str(page) else "real"
    browser.screenshot(SHOTS / f"{kind}-{scheme}-{width}.png")
    assert browser.faults(axe) == []
    width_of_page = browser.driver.execute_script("return document.documentElement.scrollWidth")
    assert width_of_page <= width
    browser.color_scheme("light")


@pytest.mark.parametrize("width", [1280, 390])
def test_a_table_wider_than_the_page_says_so_and_no_other(browser, page, width):
    browser.open(page, width, 844)
    tables = browser.driver.find_elements(By.CSS_SELECTOR, "section > .scroll")
    overflowing = {
        table.get_attribute("aria-label"): browser.driver.execute_script(
            "return arguments[0].scrollWidth > arguments[0].clientWidth + 1", table
        )
        for table in tables
    }
    shown = {
        table.get_attribute("aria-label"): table.find_element(
            By.XPATH, "preceding-sibling::p[@class='hint'][1]"
        ).is_displayed()
        for table in tables
    }
    assert shown == overflowing
    assert any(shown.values())
    if width == 1280:
        assert not all(shown.values())


def test_a_chinese_page_has_no_english_words(browser, made):
    """But for names, which are the user's, the framework's or the metrics' own."""
    browser.open(made("words", pictures=3, language="zh"))
    assert browser.driver.find_element(By.TAG_NAME, "html").get_attribute("lang") == "zh-Hans"
    found = browser.driver.execute_script("""
        const own = ".said p, .card h3, code, figcaption, dd, .downloads, .keys td, #example, metadata";
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        const texts = [];
        while (walker.nextNode()) {
          const place = walker.currentNode.parentElement;
          if (!place.closest(own + ", script, style, noscript")) texts.push(walker.currentNode.data);
        }
        for (const name of ["aria-label", "alt", "title", "placeholder"])
          for (const place of document.querySelectorAll(`[${name}]`))
            if (!place.closest(own + ", .card")) texts.push(place.getAttribute(name));
        return texts;
    """)
    names = {
        "mindtune", "baseline", "chrF", "BLEU", "ROUGE", "max_new_tokens", "token", "n", "p", "csv",
        "compare", "kind", "color", "feature", "e", "L", "jpg",
    }  # fmt: skip
    words = {word for text in found for word in re.findall("[A-Za-z_]+", text)}
    assert words - names == set()


def test_dialog_is_accessible(browser, page, axe):
    browser.open(page)
    cards(browser)[0].find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    browser.screenshot(SHOTS / "dialog.png")
    assert browser.faults(axe) == []


def test_sweep_is_accessible_and_ranks(browser, made, axe):
    names = ("warm", "hot", "cold")
    browser.open(made("sweep", pictures=20, experiments=names, right=(0.9, 0.95, 0.2)))
    rows = browser.driver.find_elements(
        By.XPATH, "//section[@aria-labelledby='experiments']//tbody/tr/th"
    )
    assert rows[-1].text == "cold"
    assert {row.text for row in rows} == set(names)
    assert browser.faults(axe) == []
