"""The page without a browser: what is escaped, what fits, what it says."""

import base64
import json
import re

import pytest
from finished import COMPARISON, SCRIPT, build, finished, tables
from mindtune.comparison.contract import COMPARE, read_table
from mindtune.comparison.scores import read_metrics
from mindtune.comparison.text import boxes
from mindtune.comparison.verdicts import rule_of
from mindtune.report import wording
from mindtune.report.page import embedded_json
from mindtune.report.pictures import embed
from mindtune.report.sheet import choose, draw_sheet, font, wrap
from PIL import Image


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return build(finished(tmp_path_factory.mktemp("page"), 6, hostile=True)).read_text("utf-8")


def test_no_text_of_a_model_becomes_markup(page):
    assert SCRIPT not in page
    assert page.count("<script") == 2
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    answers = json.loads(data.group(1))["columns"]
    assert answers["before"][1] == SCRIPT and answers["reference"][1].endswith(SCRIPT)


def test_json_in_a_page_cannot_end_its_element():
    text = embedded_json(["</script><!-- & \u2028"])
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == ["</script><!-- & \u2028"]


def test_needs_nothing_else(page):
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert "url(http" not in page and "@import" not in page
    assert "script-src 'sha256-" in page


def test_the_tables_can_be_saved_from_the_page(tmp_path):
    path = build(finished(tmp_path, 3))
    found = re.findall(
        r'href="data:text/csv;base64,([^"]+)" download="(.+?)"', path.read_text("utf-8")
    )
    assert [name for _, name in found] == ["compare.csv", "summary.csv", "metrics.csv"]
    for text, name in found:
        assert base64.b64decode(text) == (path.parent / name).read_bytes()


def test_says_the_numbers_with_n_and_interval(page):
    found = re.search(r'<p class="lead">(.*?)</p>', page, re.DOTALL).group(1)
    assert re.search(r"0\u202f% → [\d.]+\u202f% \(n = 24 questions about 6 pictures", found)
    assert ("95\u202f% CI" in found and "p &lt; 0.0" in found) or "p = 0.0" in found
    assert "seen in training" in page


def said(tmp_path, before, after, pictures=20):
    """The headline of a run whose answers are made of the references by these functions."""
    root = finished(tmp_path, pictures, draw=False)
    results = root / "results"
    prompts = [json.loads(line) for line in (results / "shared/prompts.jsonl").open()]
    for place, answer in (("shared/answers_before", before), ("baseline/answers_after", after)):
        path = results / f"{place}.jsonl"
        lines = [json.loads(line) for line in path.open()]
        for number, (line, prompt) in enumerate(zip(lines, prompts, strict=True)):
            line["answer"] = answer(prompt["reference"], number)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    paths, _ = tables(root, ("baseline",))
    compared = read_table(paths["compare"], COMPARE)
    rule = rule_of(COMPARISON, compared)
    return wording.headline(read_metrics(paths["metrics"]), compared, "baseline", rule)


def right(reference, number):
    return reference


def otherwise_put(reference, number):
    return f"I see: {reference.lower()} So it is"


def pointing(reference, number):
    return "here(10,10),(500,500)"


def half(reference, number):
    return reference if number % 2 else "No idea"


def test_the_headline_says_that_only_the_form_changed(tmp_path):
    found = said(tmp_path, otherwise_put, right, pictures=80)
    assert found["says"] == "better" and found["title"].endswith(": only the form changed")
    assert "Their content is as good." in found["text"]
    # Of too few pictures that can't be said.
    assert "can't be told." in said(tmp_path / "few", otherwise_put, right)["text"]


def test_the_headline_says_that_the_content_changed(tmp_path):
    found = said(tmp_path, half, right)
    assert found["title"].endswith(
        "50\u202f% to 100\u202f% answered exactly right: the content got better"
    )
    assert said(tmp_path / "back", right, half)["title"].endswith(": the content got worse")


def test_the_headline_of_answers_that_pointed_claims_no_knowledge(tmp_path):
    found = said(tmp_path, pointing, right)
    assert found["title"].endswith(": the form of the answers changed")
    assert "100\u202f% of the answers pointed with a box before, 0\u202f% after" in found["text"]
    assert "can't tell how much of the difference is new knowledge" in found["text"]


def test_five_hundred_rows_fit_in_five_megabytes(tmp_path):
    """Photographs compress worse than drawings: noise is worse than any photograph."""
    names = []
    noise = Image.effect_noise((640, 480), 90).convert("RGB")
    for number in range(60):
        names.append(f"{number}.jpg")
        noise.save(tmp_path / names[-1], quality=90)
    budget = 60 * 3_400_000 // 500
    found = embed(tmp_path, names, budget)
    assert 0 < sum(map(len, found.values())) <= budget


def test_pictures_beyond_the_budget_are_left_out(tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    assert embed(tmp_path, ["a.png"], 10) == {}


def test_boxes_within_the_picture():
    assert boxes("公交车（139，42），（703，771）") == [(139, 42, 703, 771)]
    assert boxes("bus(139,42),(703,771) and (5,5),(1,9) and (0,0),(1001,5)") == [
        (139, 42, 703, 771)
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0\u202f%"),
        (0.944, "94.4\u202f%"),
        (0.9996, "> 99.9\u202f%"),
        (1e-5, "< 0.1\u202f%"),
        (1, "100\u202f%"),
        (1 / 3, "33.3\u202f%"),
    ],
)
def test_percent(value, text):
    assert wording.percent(value) == text


def test_signs():
    assert wording.signed(-0.04) == "0.0" and wording.signed(-1.26) == "−1.3"
    assert wording.signed(2) == "+2.0" and wording.number(None) == "–"
    assert wording.number(-0.04) == "0.0" and wording.number(-1.26) == "−1.3"
    assert wording.p_value(0.0005) == "< 0.001" and wording.p_value(0.0312) == "0.031"
    assert wording.duration(75) == "75 s" and wording.duration(7300) == "2.0 h"


def test_a_long_line_is_wrapped_and_cut():
    shape = font(17)
    lines = wrap("The feature can be seen " * 30, shape, 300)
    assert len(lines) == 3 and lines[-1].endswith("…")
    assert all(shape.getlength(line) <= 300 for line in lines)
    assert all(shape.getlength(line) <= 300 for line in wrap("word" * 60, shape, 300))
    assert "".join(wrap("公交车的背面有一个大广告", shape, 90)[:2]) in "公交车的背面有一个大广告"


def test_samples_are_taken_at_equal_distances(tmp_path):
    root = finished(tmp_path, 12)
    build(root)
    from mindtune.comparison.contract import COMPARE, read_table

    table = read_table(root / "results/compare.csv", COMPARE)
    rows = choose(table, 12)
    assert len(rows) == 12 and rows.index[0] == 0 and rows.index[-1] == len(table) - 1
    assert len(choose(table.head(5), 12)) == 5
    sheet = draw_sheet(rows, root / "results/sources/COCO2017/train2017", "baseline", 48)
    assert sheet.width > 1400 and sheet.height > 1800
