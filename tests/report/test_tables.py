"""compare.csv, summary.csv, scores: their contract, and what they say when nothing changed."""

import csv
import json

import pandas as pd
import pandera as pa
import pytest
from finished import build, finished, tables, write_lines
from mindtune.comparison.answers import count_pictures, picture_cell, pictures_in, together
from mindtune.comparison.contract import COMPARE, SUMMARY, checked, read_table
from mindtune.comparison.metrics import BY_NAME
from mindtune.comparison.scores import (
    corpus_scores,
    rank,
    read_metrics,
    read_scores,
    score_experiment,
    summarize_scores,
)
from mindtune.comparison.tables import compare_all, compare_experiment, summarize, to_csv
from mindtune.comparison.verdicts import Rule, primary_metric
from mindtune.errors import UserError
from mindtune.report.sheet import draw_sheet

NAMES = ("warm", "hot", "cold")
RULE = Rule(confidence=0.95, primary="exact", margin=0.05)
VERDICTS = {"better", "worse", "as good", "can't tell"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = finished(
        tmp_path_factory.mktemp("run"), 12, NAMES, right=(0.9, 0.95, 0.2), hostile=True, draw=False
    )
    return root, *tables(root, NAMES)


def answers(root, name):
    results = root / "results"
    return {
        "prompts": results / "shared/prompts.jsonl",
        "before": results / "shared/answers_before.jsonl",
        "after": results / name / "answers_after.jsonl",
    }


def test_a_table_read_back_is_the_same(run):
    root, paths, _ = run
    made = checked(compare_all({name: answers(root, name) for name in NAMES}), COMPARE)
    pd.testing.assert_frame_equal(read_table(paths["compare"], COMPARE), made)
    assert len(read_table(paths["summary"], SUMMARY)) == len(NAMES) * 7


def test_tables_are_the_same_bytes_elsewhere(run, tmp_path):
    again, _ = tables(finished(tmp_path, 12, NAMES, (0.9, 0.95, 0.2), True, False), NAMES)
    for name in ("compare", "summary"):
        assert again[name].read_bytes() == run[1][name].read_bytes()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("exact_after", pd.NA), ("image_in_training", True), ("experiment", None),
        ("id", "named.0"),
    ],
)  # fmt: skip
def test_the_contract_refuses(run, column, value):
    table = read_table(run[1]["compare"], COMPARE)
    row = table.index[(table["split"] == "held_out") & table["reference"].notna()][0]
    table.loc[row, column] = value
    if column == "id":
        table.loc[row, "experiment"] = table.loc[0, "experiment"]
    with pytest.raises(pa.errors.SchemaErrors):
        checked(table, COMPARE)


def test_the_contract_refuses_other_columns(run):
    table = read_table(run[1]["compare"], COMPARE)
    with pytest.raises(pa.errors.SchemaErrors):
        checked(table.assign(more=1), COMPARE)
    with pytest.raises(pa.errors.SchemaErrors):
        checked(table[table.columns[::-1]], COMPARE)


def test_a_broken_file_is_told_in_a_sentence(run, tmp_path):
    text = run[1]["compare"].read_text(encoding="utf-8").replace(",false,", ",perhaps,", 1)
    broken = tmp_path / "compare.csv"
    broken.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"compare.csv is not what this version writes.*delete it"):
        read_table(broken, COMPARE)


def test_answers_of_other_prompts_are_refused(run, tmp_path):
    files = answers(run[0], "warm")
    lines = files["after"].read_text().splitlines(keepends=True)
    (tmp_path / "after.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(
        UserError, match="the answers after of experiment warm are of other prompts"
    ):
        compare_experiment("warm", files | {"after": tmp_path / "after.jsonl"})


def test_scores_by_row(run):
    scores = read_scores([run[2]["warm"]["scores"]]).set_index("id")
    bus = scores.loc["named.0"]
    assert bus["box_before"] and not bus["box_after"]
    assert bus["chrf_after"] == 100 and bus["verdict"] == "improved"
    assert scores["language"].value_counts()["zh"] == 1
    assert scores["seconds_before"].gt(0).all()


def test_ranking_tells_what_can_be_told(run):
    scores = read_scores(files["scores"] for files in run[2].values())
    ranked = rank(scores, NAMES, RULE)
    assert {row["experiment"] for row in ranked[:2]} == {"warm", "hot"}
    assert ranked[2]["experiment"] == "cold"
    behind = ranked[1]["behind"]
    assert behind.low < -0.05 and ranked[1]["says"] == "can't tell"
    assert ranked[2]["says"] == "worse" and ranked[2]["behind"].high < -0.5
    wide = rank(scores, NAMES, Rule(confidence=0.95, primary="exact", margin=0.4))
    assert [row["says"] for row in wide[1:]] == ["as good", "worse"]


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    """A run whose fine-tuning did nothing at all."""
    root = finished(tmp_path_factory.mktemp("unchanged"), 12)
    before = (root / "results/shared/answers_before.jsonl").read_text()
    (root / "results/baseline/answers_after.jsonl").write_text(before)
    return root, build(root)


def test_nothing_changed_says_so(unchanged):
    root, page = unchanged
    metrics = read_metrics(root / "results/metrics.csv")
    assert set(metrics["says"]) <= {"", "as good", "can't tell"}
    judged = metrics[metrics["says"] != ""]
    assert set(judged["metric"]) == {"exact", "content"} and (judged["p_adjusted"] == 1).all()
    assert (judged["difference"] == 0).all()
    assert not read_table(root / "results/compare.csv", COMPARE)["changed"].any()
    text = page.read_text(encoding="utf-8")
    assert "No difference: not one answer changed" in text
    assert ">better<" not in text and "Fine-tuning took" not in text


def test_chance_alone_is_not_called_a_difference(unchanged, tmp_path):
    """Some answers got right and as many got wrong: changed, but not better."""
    root = finished(tmp_path, 12, draw=False)
    lines = [json.loads(line) for line in answers(root, "baseline")["prompts"].open()]
    for stage, rest in (("before", 0), ("after", 1)):
        said = [
            {"id": p["id"], "image": p["image"], "prompt": p["prompt"], "tokens": 5, "cut": False,
             "answer": p["reference"] if n % 2 == rest else "No idea.", "seconds": 0.1}
            for n, p in enumerate(lines)
        ]  # fmt: skip
        answers(root, "baseline")[stage].write_text("".join(json.dumps(s) + "\n" for s in said))
    paths, _ = tables(root, ("baseline",))
    metrics = read_metrics(paths["metrics"])
    row = metrics[(metrics["metric"] == "exact") & (metrics["family"] == "all")].iloc[-1]
    assert row["before"] == row["after"] == 0.5 and row["says"] == "can't tell"


@pytest.fixture
def unjudged(tmp_path):
    """A run about which nobody knows the right answers, and nothing is held out."""
    root = finished(tmp_path, 6)
    path = answers(root, "baseline")["prompts"]
    lines = [json.loads(line) | {"reference": None, "split": "named"} for line in path.open()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def test_without_references_nobody_says_better(unjudged):
    text = build(unjudged).read_text(encoding="utf-8")
    assert "Fine-tuning changed 100\u202f% of the answers" in text
    assert "nobody can say whether for the better" in text
    assert "No prompt has a reference." in text
    assert len(read_table(unjudged / "results/summary.csv", SUMMARY)) == 0
    metrics = read_metrics(unjudged / "results/metrics.csv")
    assert "exact" not in set(metrics["metric"]) and "box" in set(metrics["metric"])
    scores = read_scores([unjudged / "results/baseline/scores.csv"])
    assert set(scores["verdict"]) == {"changed"} and rank(scores, ["baseline"], RULE) == []


def test_experiments_with_other_questions_are_not_compared(run):
    scores = read_scores(run[2][name]["scores"] for name in ("warm", "cold"))
    cold = scores["experiment"] == "cold"
    scores.loc[cold, "id"] = "other " + scores.loc[cold, "id"]
    ranked = rank(scores, ("warm", "cold"), RULE)
    assert ranked[1]["behind"] is None and ranked[1]["says"] is None


def test_identical_models_are_neither_better_nor_worse_anywhere(tmp_path):
    """Three experiments with the base's own answers; only the clock ran otherwise."""
    root = finished(tmp_path, 30, NAMES, (0.5, 0.5, 0.5))
    results = root / "results"
    lines = [json.loads(line) for line in (results / "warm/answers_after.jsonl").open()]
    for place, seconds in (
        ("shared/answers_before", 0.05),
        *((f"{n}/answers_after", 2.0) for n in NAMES),
    ):
        text = "".join(json.dumps(line | {"seconds": seconds}) + "\n" for line in lines)
        (results / f"{place}.jsonl").write_text(text)
    page = build(root, NAMES).read_text("utf-8")
    metrics = read_metrics(results / "metrics.csv")
    assert set(metrics["says"]) <= {"", "as good", "can't tell"}
    ranked = rank(read_scores(results / name / "scores.csv" for name in NAMES), NAMES, RULE)
    assert {row["says"] for row in ranked} <= {None, "as good", "can't tell"}
    assert not any(f">{word}<" in page for word in ("better", "worse", "higher", "lower"))
    assert "No difference: not one answer changed" in page


def test_clocks_have_medians_and_no_verdict(run):
    metrics = read_metrics(run[1]["metrics"])
    clocks = metrics[metrics["metric"].isin(["seconds", "tokens_per_second"])]
    assert len(clocks) == 2 * 7 * len(NAMES)
    for column in ("difference", "low", "high", "p", "p_adjusted"):
        assert clocks[column].isna().all()
    assert (clocks["says"] == "").all()
    scores = read_scores([run[2]["warm"]["scores"]])
    row = clocks[clocks["experiment"].eq("warm") & clocks["metric"].eq("seconds")].iloc[-1]
    held_out = scores[scores["split"] == row["split"]]
    held_out = held_out if row["family"] == "all" else held_out[held_out["family"] == row["family"]]
    assert row["after"] == pytest.approx(held_out["seconds_after"].median(), abs=1e-4)


def test_every_verdict_is_borne_by_its_interval_and_its_corrected_p(run):
    metrics = read_metrics(run[1]["metrics"])
    judged = metrics[metrics["says"] != ""]
    assert set(judged["says"]) <= VERDICTS and set(judged["metric"]) == {"exact", "content"}
    assert metrics.loc[metrics["says"] == "", "p_adjusted"].isna().all()
    for row in judged.itertuples():
        clear = row.p_adjusted < 0.05 and not row.low <= 0 <= row.high
        assert clear == (row.says in ("better", "worse"))
        if row.says == "as good":
            assert row.low >= -0.05 and row.high <= 0.05
        if row.says == "can't tell":
            assert row.low < -0.05 or row.high > 0.05
        assert row.p_adjusted >= row.p


@pytest.mark.parametrize(
    ("low", "high", "p", "says"),
    [
        (0.01, 0.2, 0.001, "better"), (-0.2, -0.01, 0.001, "worse"),
        (0.016, 0.156, 0.062, "can't tell"),  # once called as good
        (-0.04, 0.05, 0.9, "as good"), (-0.051, 0.04, 0.9, "can't tell"),
        (-0.01, 0.2, 0.03, "can't tell"), (0.001, 0.04, 0.2, "as good"),
    ],
)  # fmt: skip
def test_one_rule_gives_all_verdicts(low, high, p, says):
    found = {"low": low, "high": high, "difference": (low + high) / 2}
    assert RULE.verdict(found, p, BY_NAME["exact"]) == says
    hundred = {key: 100 * value for key, value in found.items()}
    assert RULE.verdict(hundred, p, BY_NAME["chrf"]) == says
    if says in ("better", "worse"):
        other = {"better": "worse", "worse": "better"}[says]
        assert RULE.verdict(found, p, BY_NAME["empty"]) == other


def test_the_primary_metric_follows_from_the_references_alone(run):
    table = read_table(run[1]["compare"], COMPARE)
    assert primary_metric(table, None) == "exact" and primary_metric(table, "bleu") == "bleu"
    wrong = table.assign(after="", before="", exact_after=False, exact_before=False)
    assert primary_metric(wrong, None) == "exact"
    long = table.assign(reference=table["reference"] + " and" * 12)
    assert primary_metric(long, None) == "chrf"
    # Only the named question, which is no part of it, is short.
    long.loc[long["split"] == "named", "reference"] = "Red."
    assert primary_metric(long, None) == "chrf"


def test_the_summary_scores_content_whatever_the_form(tmp_path):
    root = finished(tmp_path, 12, draw=False)
    files = answers(root, "baseline")
    lines = [json.loads(line) for line in files["after"].open()]
    for line in lines:
        line["answer"] = f"Well: {line['answer'].lower()} Or so I think"
    files["after"].write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = read_table(tables(root, ("baseline",))[0]["summary"], SUMMARY)
    assert (summary["exact_after"] == 0).all()
    whole = summary[summary["family"] == "all"]
    assert (whole["content_after"] > 0.85).all() and (whole["content_before"] < 0.1).all()
    assert (summary["content_difference_low"] <= summary["content_difference"]).all()


def test_a_picture_that_has_gone_is_told(tmp_path):
    root = finished(tmp_path, 4)
    gone = root / "results/sources/COCO2017/train2017/000000033471.jpg"
    gone.unlink()
    with pytest.raises(
        UserError, match=r"000000033471\.jpg can't be used: the image is missing; put it back"
    ):
        build(root)


def given(place, prompts, before, after):
    """The files of an experiment with these prompts and answers."""
    files = {name: place / f"{name}.jsonl" for name in ("prompts", "before", "after")}
    kept = {"split": "held_out", "family": "other", "image_in_training": False}
    asked = [{"id": str(n), **kept, "prompt": "Q?", **one} for n, one in enumerate(prompts)]
    write_lines(files["prompts"], asked)
    for name, answers in (("before", before), ("after", after)):
        lines = [
            {"id": str(n), "answer": text, "tokens": 3, "cut": False, "seconds": 0.1}
            for n, text in enumerate(answers)
        ]
        write_lines(files[name], lines)
    return files


def written(table, place):
    """The table as it is read back from a file."""
    to_csv(checked(table, COMPARE), place / "compare.csv")
    return read_table(place / "compare.csv", COMPARE)


BOX = "<|object_ref_start|>the bus<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>"


def test_marks_of_boxes_make_no_difference(tmp_path):
    """A model that was trained on marks writes them; a perfect answer is a perfect answer."""
    plain = "the bus(1,2),(3,4)"
    prompts = [{"image": "a.jpg", "reference": text} for text in (BOX, plain, BOX)]
    files = given(tmp_path, prompts, [plain, BOX, "the bus(1,2),(3,5)"], [BOX, BOX, f"{BOX} "])
    table = written(compare_experiment("one", files), tmp_path)
    assert table["exact_before"].tolist() == [True, True, False]
    assert table["exact_after"].tolist() == [True, True, True]
    assert set(table["after"]) == set(table["reference"]) == {plain}
    assert table["box_before"].all() and table["box_after"].all()
    assert table["changed"].tolist() == [False, False, True]
    scores = score_experiment("one", files)
    assert (scores["chrf_after"] == 100).all()


def test_a_question_about_several_pictures_has_a_list_of_them(tmp_path):
    names = [["a.jpg", "b, c.jpg"], ["a.jpg"], ['["x"]']]
    prompts = [{"images": one, "prompt": "<image>?", "reference": "R"} for one in names]
    prompts += [{"image": "[a].jpg", "reference": "R"}]
    files = given(tmp_path, prompts, ["A"] * 4, ["R"] * 4)
    table = written(compare_experiment("one", files), tmp_path)
    assert table["image"].tolist() == [
        '["a.jpg", "b, c.jpg"]', "a.jpg", '["[\\"x\\"]"]', "[a].jpg"
    ]  # fmt: skip
    assert table["image"].map(pictures_in).tolist() == [*names, ["[a].jpg"]]
    assert score_experiment("one", files)["image"].tolist() == table["image"].tolist()


def test_prompts_with_a_picture_in_common_are_one_piece_of_evidence(tmp_path):
    cells = [picture_cell(one) for one in (["a", "b"], ["b"], ["c"], ["c", "d"], ["e"])]
    assert together(cells) == ["a", "a", "c", "c", "e"] and count_pictures(cells) == 5
    chain = [["a0", "a1"], ["a1", "a2"], ["a2", "a3"]]
    prompts = [{"images": one, "reference": "R"} for one in [*chain, ["x"], ["y"], ["z"]]]
    files = given(tmp_path, prompts, ["A"] * 6, ["R"] * 6)
    table = compare_experiment("one", files)
    row = summarize(table, 0.95).iloc[-1]
    assert (row["n"], row["pictures"]) == (6, 7)
    assert row["exact_p"] == 2 / 2**4  # of four pieces, not of six
    metrics = summarize_scores(score_experiment("one", files), RULE)
    exact = metrics[(metrics["metric"] == "exact") & (metrics["family"] == "all")].iloc[0]
    assert exact["p"] == 2 / 2**4 and exact["pictures"] == 7


def test_an_empty_reference_and_an_empty_answer_are_scored(tmp_path):
    prompts = [
        {"image": f"{n}.jpg", "reference": text} for n, text in enumerate(["", "Yes.", "", None])
    ]
    files = given(tmp_path, prompts, ["Yes.", "", "", ""], ["", "Yes.", " ", ""])
    table = written(compare_experiment("one", files), tmp_path)
    assert table["reference"].isna().tolist() == [False, False, False, True]
    assert table["exact_after"].tolist() == [True, True, True, pd.NA]
    assert table["exact_before"].tolist() == [False, False, True, pd.NA]
    to_csv(score_experiment("one", files), tmp_path / "scores.csv")
    scores = read_scores([tmp_path / "scores.csv"])
    for name in ("chrf", "bleu", "rouge_l"):
        assert scores[f"{name}_after"].round(6).tolist() == [100, 100, 100, pd.NA]
        assert scores[f"{name}_before"].tolist() == [0, 0, 100, pd.NA]
    metrics = summarize_scores(scores, RULE).merge(corpus_scores(table), how="left")
    row = metrics[(metrics["metric"] == "exact") & (metrics["family"] == "all")].iloc[0]
    assert (row["n"], row["after"]) == (3, 1.0)


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_a_row_is_one_row_to_any_reader(tmp_path, end):
    texts = [f"one{end}two", "=1+1", "a\u2028b\x85c", f"{end}"]
    prompts = [{"image": "a.jpg", "prompt": text, "reference": text} for text in texts]
    table = written(compare_experiment("one", given(tmp_path, prompts, texts, texts)), tmp_path)
    wanted = [text.replace(end, "\n") for text in texts]
    assert table["prompt"].tolist() == wanted and len(table) == 4
    data = (tmp_path / "compare.csv").read_bytes()
    assert b"\r" not in data
    with open(tmp_path / "compare.csv", newline="", encoding="utf-8") as handle:
        assert [row["prompt"] for row in csv.DictReader(handle)] == wanted
    frame = pd.read_csv(tmp_path / "compare.csv", engine="python", keep_default_na=False)
    assert frame["prompt"].tolist() == wanted


def test_line_separators_in_an_answer_go_through_to_the_report(tmp_path):
    """Of the model's own: JSON lines may hold them, and end at line feeds only."""
    root = finished(tmp_path, 4)
    files = answers(root, "baseline")
    said = "A bus.\u2028Red.\x85Or\x1cblue."
    lines = [json.loads(line) for line in files["after"].open()]
    write_lines(files["after"], [line | {"answer": said} for line in lines])
    text = build(root).read_text(encoding="utf-8")
    assert set(read_table(root / "results/compare.csv", COMPARE)["after"]) == {said}
    assert "A bus.\\u2028Red." in text


def test_several_pictures_are_shown_side_by_side(tmp_path):
    root = finished(tmp_path, 4)
    files = answers(root, "baseline")
    lines = [json.loads(line) for line in files["prompts"].open()]
    names = list(dict.fromkeys(line["image"] for line in lines))
    box = "<|box_start|>(100,100),(900,900)<|box_end|>"
    for number, count in ((0, 2), (1, 4)):
        del lines[number]["image"]
        marks = "<image>\n" * count
        lines[number] |= {"images": names[:count], "prompt": f"{marks}Which is red?"}
    write_lines(files["prompts"], lines)
    before = [json.loads(line) | {"answer": box} for line in files["before"].open()]
    write_lines(files["before"], before)
    page = build(root).read_text(encoding="utf-8")
    for name in names[:2]:
        assert f'alt="The picture {name}, about which the question is"' in page
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["columns"]["image"][:3] == [names[:2], names[:4], [lines[2]["image"]]]
    assert set(names[:4]) <= set(data["pictures"])
    # An answer about several pictures doesn't say in which its box is.
    assert data["columns"]["boxes_before"][:3] == [[], [], [[100, 100, 900, 900]]]
    table = read_table(root / "results/compare.csv", COMPARE)
    images = root / "results/sources/COCO2017/train2017"
    plain = draw_sheet(table.iloc[[2]], images, "Title", "Note")
    sheet = draw_sheet(table.iloc[:3], images, "Title", "Note")
    assert sheet.width == plain.width
    middle = 40 + 12 + 454 // 2, 115 + 12 + 363 // 2
    halves = [sheet.getpixel((middle[0] + side * 113, middle[1])) for side in (-1, 1)]
    background = (0xE9, 0xEB, 0xEE)
    assert background not in halves and len(set(halves)) == 2
