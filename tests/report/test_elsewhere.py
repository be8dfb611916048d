"""The page of models that were trained elsewhere, alone and beside trained ones, in both languages."""

import json
import re

import pytest
from build_report import read_run
from finished import COMPARISON, finished, tables
from mindtune.comparison.contract import COMPARE, checked, read_table
from mindtune.comparison.tables import compare_all, to_csv
from mindtune.report import wording
from mindtune.report.page import Run, render
from mindtune.report.sheet import choose, draw_sheet
from mindtune.report.words import Words

NAMES = ("baseline", "mine")


def elsewhere(root, names):
    """The run in `root`, in which the models of these experiments were trained elsewhere."""
    paths, of_experiment = tables(root, NAMES)
    results = root / "results"
    files = {
        name: {
            "prompts": results / "shared/prompts.jsonl",
            "before": results / "shared/answers_before.jsonl",
            "after": results / name / "answers_after.jsonl",
        }
        for name in NAMES
    }
    to_csv(checked(compare_all(files, names), COMPARE), paths["compare"])
    for name in names:
        del of_experiment[name]["loss"]
        path = of_experiment[name]["provenance"]
        found = json.loads(path.read_text())
        found["config"]["tuned_model"] = f"/models/{name}"
        del found["config"]["train"], found["config"]["parallel"]
        path.write_text(json.dumps(found | {"training": None}))
    return read_run(paths, of_experiment, results / "sources/COCO2017/train2017", COMPARISON)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("run"), 4, NAMES, (0.5, 1.0))


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("names", [("mine",), NAMES], ids=["beside", "alone"])
def test_the_page_says_which_models_were_trained_elsewhere(root, language, names):
    run = elsewhere(root, names)
    words = Words(language)
    page = render(Run(**{**vars(run), "words": words}))
    listed = words("list.comma").join(names)
    for key in ("page.elsewhere", "training.elsewhere", "reading.elsewhere"):
        assert words(key, names=listed) in re.sub("&#39;", "'", page), key
    # The best is mine: of its training nothing is said, and nothing that could be read so.
    assert words("facts.settings_elsewhere") in re.sub("&#39;", "'", page)
    assert words("example.unknown") in page
    assert words("provenance.elsewhere", path="/models/mine") in page
    assert "tuned_model = /models/mine" in page
    beside = names == ("mine",)
    assert ('<figure class="curves"' in page) == beside
    assert (words("reading.source") in re.sub("&#39;", "'", page)) == beside
    assert '"image_in_training":[true' not in page or beside


def test_what_differs_leaves_the_training_of_others_out(root):
    differing = wording.differing_settings(elsewhere(root, ("mine",)).provenance)
    assert differing == {"baseline": {}, "mine": {"tuned_model": "/models/mine"}}


def test_the_table_does_not_know_what_they_have_seen(root):
    elsewhere(root, ("mine",))
    table = read_table(root / "results/compare.csv", COMPARE).set_index("experiment")
    assert table.loc["mine", "image_in_training"].isna().all()
    assert table.loc["baseline", "image_in_training"].notna().all()


def test_the_sheet_marks_no_picture_as_seen(root):
    run = elsewhere(root, NAMES)
    assert run.compared["image_in_training"].isna().all()
    rows = choose(run.compared[run.compared["experiment"] == "mine"], 3)
    known = rows.assign(image_in_training=False)
    sheets = [draw_sheet(some, run.images, "title", "note").tobytes() for some in (rows, known)]
    assert sheets[0] == sheets[1]
