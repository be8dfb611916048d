"""Sweeps on the page: means over seeds, plots over parameters, and what went wrong."""

import csv
import json
import math
import random
import re

import pandas as pd
import pytest
from finished import COMPARISON, finished, provenance, tables
from mindtune.comparison.metrics import BY_NAME
from mindtune.divergence import write_no_answers
from mindtune.report import sweep_plot
from mindtune.report.page import render
from mindtune.report.sweep import (
    DIVERGED,
    LATER,
    ROSE,
    Point,
    Training,
    course,
    groups,
    parameters,
    wants_logarithm,
)
from mindtune.report.sweep_plot import number_word, sweep_svg
from mindtune.report.wording import differing_settings
from mindtune.settings import Settings
from mindtune.settings.grid import word_of
from mindtune.settings.section import item_model

from build_report import read_run  # isort: skip


def training(name, value, weights=None, gone=False, **settings):
    found = {f"train.{key}": number for key, number in settings.items()}
    return Training(name, found, value, weights or name, DIVERGED if gone else "")


def test_trainings_that_differ_in_seeds_alone_are_one_group():
    found = groups(
        [
            training("base", 0.5, lr=1e-5),  # order_seed came later: absent is null
            training("a1", 0.6, lr=1e-5, order_seed=1),
            training("a2", 0.7, lr=1e-5, order_seed=2),
            training("b1", 0.2, lr=1e-4, order_seed=1),
            training("b2", None, lr=1e-4, order_seed=2, gone=True),
        ]
    )
    assert [dict(group.differing) for group in found] == [{"train.lr": 1e-5}, {"train.lr": 1e-4}]
    assert found[0].values == [0.5, 0.6, 0.7]
    assert found[0].mean == pytest.approx(0.6) and found[0].deviation == pytest.approx(0.1)
    assert (found[1].values, found[1].diverged, found[1].deviation) == ([0.2], 1, None)


def test_trainings_that_became_the_same_model_have_no_spread():
    same = [training(f"s{n}", 0.5, weights="w", lr=1e-5, seed=n) for n in (1, 2, 3)]
    (found,) = groups(same)
    assert found.values == [0.5] and found.deviation is None


def test_settings_that_are_lists_tell_lines_of_a_plot_apart():
    """As train.lora's modules, which a training without adapters lacks."""
    points = parameters(
        [
            training("a", 0.5, **{"lora.rank": 4, "lora.target_modules": ["q", "v"]}),
            training("b", 0.6, **{"lora.rank": 8, "lora.target_modules": ["q", "v"]}),
            training("whole", 0.7),
        ]
    )
    assert [point.at for point in points["train.lora.rank"]] == [4, 8]
    told = {point.others for point in points["train.lora.rank"]}
    assert told == {(("train.lora.target_modules", "[q, v]"),)}
    svg = sweep_svg(points, BY_NAME["exact"])
    assert svg.startswith("<svg")


def test_parameters_are_the_numbers_that_vary_but_seeds():
    points = parameters(
        [
            training("a", 0.5, lr=1e-5, lr_decay_style="cosine", order_seed=1, save_optim=True),
            training("b", 0.6, lr=1e-4, lr_decay_style="linear", order_seed=2, save_optim=False),
        ]
    )
    assert list(points) == ["train.lr"]
    # No cross for a training that has no score for another reason.
    unscored = [training("a", 0.5, lr=1e-5), training("b", None, lr=1e-4)]
    assert parameters(unscored) == {}
    assert len(parameters([*unscored, training("c", None, lr=1e-3, gone=True)])["train.lr"]) == 2
    others = (("train.lr_decay_style", "cosine"), ("train.save_optim", True))
    assert points["train.lr"][0] == Point(1e-5, 0.5, others)


def test_an_axis_is_logarithmic_from_a_decade_on(monkeypatch):
    assert wants_logarithm([1e-5, 1e-4]) and not wants_logarithm([1e-5, 9e-5])
    assert not wants_logarithm([0, 1000])
    scales = []
    draw = sweep_plot._draw

    def spied(axes, *rest):
        draw(axes, *rest)
        scales.append((axes.get_xscale(), [text.get_text() for text in axes.get_xticklabels()]))

    monkeypatch.setattr(sweep_plot, "_draw", spied)
    lost = Point(1e-3, None, ())
    rates = [Point(1e-5, 0.5, ()), Point(1e-4, 0.6, ()), lost]
    batches = [Point(16.0, 0.5, ()), Point(32.0, 0.6, ())]
    svg = sweep_svg({"train.lr": rates, "train.global_batch_size": batches}, BY_NAME["exact"])
    assert scales == [("log", ["1e-5", "1e-4", "0.001"]), ("linear", ["16", "32"])]
    assert "#01" not in svg and "var(--series-1)" in svg and ">diverged<" in svg


@pytest.mark.parametrize("value", [1e-5, 2.5e-5, 1e-4, 0.001, 0.1, 3e10, 16.0, 0.0])
def test_numbers_are_written_as_in_the_names_of_a_grid(value):
    assert number_word(value) == word_of(value)


def losses(*values):
    return pd.DataFrame({"loss": values})


def test_what_went_wrong_with_a_training():
    rng = random.Random(1)
    noise = [rng.uniform(-0.1, 0.1) for _ in range(100)]
    falling = [2 * math.exp(-i / 30) + noise[i] for i in range(100)]
    assert course(losses(*falling)) == ""
    assert course(losses(*reversed(falling))) == ROSE
    assert course(losses(*(1 + one for one in noise))) == ""
    assert course(losses(*falling[:50], math.nan)) == DIVERGED
    assert course(losses(*falling[:50], math.inf)) == DIVERGED
    assert course(losses(1.0, 2.0, 3.0)) == ""  # too few to tell


def test_keys_that_came_later_have_their_default_where_they_are_absent():
    later = {
        f"{section}.{name}": field.default
        for section, outer in Settings.model_fields.items()
        if section in ("data", "processor", "parallel", "train", "answer")
        for name, field in item_model(outer.annotation).model_fields.items()
        if field.json_schema_extra.get("later")
    }
    assert later == LATER
    configs = {"a": {"train": {"lr": 1}}, "b": {"train": {"lr": 1, "order_seed": 3}}}
    found = differing_settings({name: {"config": config} for name, config in configs.items()})
    assert found == {"a": {"train.order_seed": "null"}, "b": {"train.order_seed": "3"}}


RATES, SEEDS = (1e-4, 1e-2), (1, 2, 3)
NAMES = {f"lr-{rate:g}_order_seed-{seed}": (rate, seed) for rate in RATES for seed in SEEDS}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two rates, three orders; the last one diverged."""
    root = finished(
        tmp_path_factory.mktemp("sweep"), 6, list(NAMES), (0.2, 0.4, 0.6, 0.9, 0.9, 0.9)
    )
    *answered, lost = NAMES
    results = root / "results"
    write_no_answers(results / lost / "answers_after.jsonl", {"iteration": 61, "loss": "nan"})
    with open(results / lost / "loss.csv", "a", newline="") as handle:
        csv.writer(handle).writerow([61, 976, 1e-3, "nan", "nan", 200, 78.0, ""])
    paths, experiments = tables(root, answered)
    experiments[lost] = {
        kind: results / lost / path.name if kind != "conversion" else path
        for kind, path in experiments[answered[0]].items()
    }
    header = (results / answered[0] / "scores.csv").read_text().splitlines()[0]
    experiments[lost]["scores"].write_text(header + "\n")
    for name, (rate, seed) in NAMES.items():
        made_of = provenance(name, rate)
        made_of["config"]["train"]["order_seed"] = seed
        experiments[name]["provenance"].write_text(json.dumps(made_of))
    images = results / "sources/COCO2017/train2017"
    text = render(read_run(paths, experiments, images, COMPARISON))
    (root / "report.html").write_text(text)
    return text


def test_the_page_has_means_over_seeds_and_a_plot(page):
    section = re.search(r'<section aria-labelledby="sweep">(.*?)</section>', page, re.DOTALL)[1]
    rows = re.findall(r"<tr>(.*?)</tr>", section, re.DOTALL)[1:]
    assert [re.findall(r"train\.\w+ = [^<]+", row) for row in rows] == [
        ["train.lr = 0.0001"], ["train.lr = 0.01"],
    ]  # fmt: skip
    cells = [re.findall(r'<td class="num">(.*?)</td>', row, re.DOTALL) for row in rows]
    assert [(row[0], row[-1]) for row in cells] == [("3", "–"), ("2", "1")]
    assert "points" in cells[0][2]
    assert section.count("<svg") == 2 and "train.lr" in section and ">diverged<" in section
    assert "as many trainings as the table over seeds has" in page


def test_the_page_marks_what_diverged_and_says_what_differs_alone(page):
    *_, lost = NAMES
    section = re.search(r'<section aria-labelledby="experiments">(.*?)</section>', page, re.DOTALL)
    row = next(row for row in section[1].split("<tr>") if f">{lost}" in row)
    assert '<span class="badge warn">diverged</span>' in row and "no model" in row
    assert re.findall(r"<code>(.*?)</code>", row) == ["train.lr = 0.01", "train.order_seed = 3"]
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert lost not in json.loads(data[1])["experiments"]
