"""What controls bring to the tables and to the page, and that nothing changes without them."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from finished import COMPARISON, ask_controls, build, finished, tables, write_lines
from mindtune.comparison.contract import COMPARE, SUMMARY, checked, read_table
from mindtune.comparison.controls import summarize_control
from mindtune.comparison.scores import all_metrics, read_metrics, score_experiment
from mindtune.comparison.statistics import wilson_interval
from mindtune.comparison.verdicts import rule_of
from mindtune.errors import UserError
from mindtune.files import read_json_lines
from mindtune.report.seeing import seeing
from mindtune.report.words import Words

RIGHT = {"blind": 12, "shuffled": 6}  # of 48
NAMES = ("baseline", "hot")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    root = finished(tmp_path_factory.mktemp("plain"), experiments=NAMES, right=(0.94, 0.6))
    return root, tables(root, NAMES)[0]


@pytest.fixture(scope="module")
def asked(plain, tmp_path_factory):
    """The same run with both controls."""
    root = tmp_path_factory.mktemp("asked") / "run"
    shutil.copytree(plain[0], root)
    ask_controls(root, NAMES, RIGHT)
    return root, tables(root, NAMES)[0]


def test_the_tables_are_the_same_but_for_columns_at_their_ends(plain, asked):
    for name in ("compare", "summary", "metrics"):
        before, after = (
            pd.read_csv(run[1][name], dtype=str, keep_default_na=False) for run in (plain, asked)
        )
        assert list(after.columns[: len(before.columns)]) == list(before.columns)
        pd.testing.assert_frame_equal(after[before.columns], before)
        added = after.columns[len(before.columns) :]
        assert len(added) == {"compare": 9, "summary": 28, "metrics": 10}[name]
        assert (after.loc[after["split"] == "named", added] == "").all(axis=None)


def test_compare_csv_has_the_answers_and_the_other_pictures(asked):
    table = read_table(asked[1]["compare"], COMPARE)
    rows = table[(table["experiment"] == "hot") & (table["split"] == "held_out")]
    assert (rows["shuffled_image"] != rows["image"]).all()
    assert sorted(set(rows["shuffled_image"])) == sorted(set(rows["image"]))
    for control, right in RIGHT.items():
        assert rows[f"exact_{control}_after"].sum() == right
        assert rows[f"exact_{control}_before"].sum() == 0
        said = rows[f"{control}_after"]
        assert said[:right].equals(rows["reference"][:right])
        assert (said[right:] == "").all()  # an empty answer is one, and not none


def test_what_is_seen_is_the_gain_less_that_of_the_control(asked):
    summary = read_table(asked[1]["summary"], SUMMARY).set_index(["experiment", "split", "family"])
    for name in NAMES:
        row = summary.loc[name, "held_out", "all"]
        for control, right in RIGHT.items():
            assert row[f"exact_{control}_after"] == pytest.approx(right / 48, abs=1e-4)
            ends = wilson_interval(right, 48, 0.95)
            assert [
                row[f"exact_{control}_after_{end}"] for end in ("low", "high")
            ] == pytest.approx(ends, abs=1e-4)
            seen = row["exact_difference"] - right / 48
            assert row[f"exact_{control}_seen"] == pytest.approx(seen, abs=2e-4)
            assert row[f"exact_{control}_seen_low"] < seen < row[f"exact_{control}_seen_high"]
    metrics = read_metrics(asked[1]["metrics"]).set_index(
        ["experiment", "split", "family", "metric"]
    )
    for metric in ("exact", "content"):
        row = metrics.loc["hot", "held_out", "all", metric]
        of_summary = summary.loc["hot", "held_out", "all"]
        for key in ("before", "after", "seen", "seen_low", "seen_high"):
            assert row[f"blind_{key}"] == pytest.approx(
                of_summary[f"{metric}_blind_{key}"], abs=1e-4
            )
    assert np.isnan(metrics.loc["hot", "held_out", "all", "words"]["blind_seen"])


def rows_of(own, other):
    """48 questions about 12 pictures: pairs of right before and after, with each picture."""
    columns = {"before": own[0], "after": own[1], "blind_before": other[0], "blind_after": other[1]}
    table = pd.DataFrame({name: [str(int(x)) for x in column] for name, column in columns.items()})
    cluster = [str(n // 4) for n in range(len(table))]
    return table.assign(reference="1", prompt="What?", cluster=cluster)


def seen(own, other):
    return summarize_control(
        rows_of(own, other), "blind", lambda answer, reference, _: answer == reference, 0.95, 1
    )


def test_guessing_alone_shows_as_nothing_seen_and_seeing_alone_as_all():
    rng = np.random.default_rng(4)
    none, half = np.zeros(48, bool), rng.random(48) < 0.5
    guessed = seen((none, half), (none, half))
    assert guessed["seen"] == 0 and guessed["seen_low"] < 0 < guessed["seen_high"]
    saw = seen((none, half), (none, none))
    assert saw["seen"] == pytest.approx(half.mean()) and saw["seen_low"] > 0.3
    # It got better at guessing and no better with the picture.
    worse = seen((half, half), (none, half))
    assert worse["seen"] == pytest.approx(-half.mean()) and worse["seen_high"] < 0


def test_the_interval_of_what_is_seen_holds_the_truth_as_often_as_it_says():
    """400 comparisons of 40 pictures with 4 questions: 95 % of 400 is 380, give or take 9."""
    rng = np.random.default_rng(11)
    inside = 0
    for _ in range(400):
        hard = rng.beta(2, 2, size=40).repeat(4)
        own = (rng.random(160) < 0.1, rng.random(160) < hard)
        other = (rng.random(160) < 0.1, rng.random(160) < 0.6 * hard)
        table = rows_of(own, other).assign(cluster=np.arange(160) // 4)
        found = summarize_control(
            table, "blind", lambda answer, reference, _: answer == reference, 0.95, 1
        )
        inside += found["seen_low"] <= 0.5 * (1 - 0.6) <= found["seen_high"]
    assert 365 <= inside <= 395


def test_answers_of_other_prompts_are_refused(asked, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(asked[0], root)
    place = root / "results/hot/answers_after_blind.jsonl"
    write_lines(place, read_json_lines(place)[1:])
    with pytest.raises(
        UserError, match=r"answers_after_blind\.jsonl of experiment hot are of other"
    ):
        tables(root, NAMES)


def test_the_columns_of_a_control_are_part_of_the_contract(asked):
    table = read_table(asked[1]["compare"], COMPARE)
    with pytest.raises(Exception, match="shuffled_image"):
        checked(table.drop(columns="shuffled_image"), COMPARE)
    # One control by itself is right.
    checked(table[[name for name in table if "shuffled" not in name]], COMPARE)


def text_of(page):
    text = page.read_text(encoding="utf-8")
    return re.sub(
        r"[ \n]+", " ", re.sub(r"<[^>]+>", " ", text.split("</head>")[1].split("<dialog")[0])
    )


def test_the_page_says_how_much_is_seen(asked):
    page = build(asked[0], NAMES)
    text = text_of(page)
    percent = "\u202f%"
    assert f"25{percent} (14.9{percent} to 38.8{percent}) with a grey one" in text
    assert f"12.5{percent} (5.9{percent} to 24.7{percent}) with another one" in text
    summary = read_table(asked[1]["summary"], SUMMARY).set_index(["experiment", "split", "family"])
    row = summary.loc["baseline", "held_out", "all"]
    gained, rest = 100 * row["exact_difference"], 100 * row["exact_blind_seen"]
    assert (
        f"of the difference of +{gained:.1f} points that takes seeing the picture: +{rest:.1f} ("
        in text
    )
    assert text.count("What is seen, and what is guessed") == 1
    assert '"blind_after":[null,null,"The vehicle' in page.read_text(encoding="utf-8")
    assert text.count("Grey, before") == text.count("Another, before") == len(NAMES)


def test_the_page_of_a_run_without_controls_says_nothing_of_them(plain):
    page = build(plain[0], NAMES).read_text(encoding="utf-8")
    assert 'id="seeing"' not in page and "with a grey one" not in page
    assert '"blind_after":[' not in page


def test_a_metric_that_is_no_share_has_no_interval_of_levels(asked):
    _, paths = asked
    compared = read_table(paths["compare"], COMPARE)
    chosen = type(COMPARISON)(**{**vars(COMPARISON), "primary_metric": "chrf"})
    rule = rule_of(chosen, compared)
    files = {
        "prompts": asked[0] / "results/shared/prompts.jsonl",
        "before": asked[0] / "results/shared/answers_before.jsonl",
        "after": asked[0] / "results/hot/answers_after.jsonl",
    }
    mine = compared[compared["experiment"] == "hot"]
    metrics = all_metrics(score_experiment("hot", files), mine, rule)
    summary = read_table(paths["summary"], SUMMARY)
    for language, says in (
        (
            "en",
            r"^chrF after fine-tuning: [\d.]+ with the picture, 25\.0 with a grey one, 12\.5 with",
        ),
        (
            "zh",
            r"^微调后的chrF：看自己的图片时为 [\d.]+，换成灰色图片时为 25\.0、换成另一张图片时为 12\.5。",
        ),
    ):
        found = seeing(metrics, summary, "hot", rule, Words(language))
        assert re.search(says, found["line"]), found["line"]
