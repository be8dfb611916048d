"""A sweep in one command: two rates, two orders of the samples, and a training that diverges."""

import csv
import json
import re

import pytest
from mindtune.settings.checks import SHARED
from tracked import in_table, same, shown
from workflow.conftest import SMALL, Checkout, merged

pytestmark = pytest.mark.long
SWEPT = [f"lr-{rate}_order_seed-{seed}" for rate in ("0.001", "0.005") for seed in (1, 2)]
# Weights grow a hundredfold in each iteration, until nothing is a number.
WILD = {"train": {"lr": 1.0, "weight_decay": 100.0, "clip_grad": 0.0, "train_iters": 30}}
ALONE = {**SMALL, "experiments": {"baseline": WILD}}
SWEEP = {**ALONE, "grid": {"train.lr": [1e-3, 5e-3], "train.order_seed": [1, 2]}}
FOLLOWED = merged(SWEEP, {"train": {"report_to": ["tensorboard"]}})
SECONDS = 1800  # five trainings and all that follows, on a busy machine


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    checkout = Checkout.make(tmp_path_factory.mktemp("sweep") / "checkout", FOLLOWED)
    said = checkout.snakemake("all", seconds=SECONDS)
    (checkout.path / "said.txt").write_text(said)
    return checkout


def rows(checkout, name):
    with open(checkout.path / name, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_one_command_compares_all_that_have_a_model(swept):
    compared = rows(swept, "results/compare.csv")
    assert list(dict.fromkeys(row["experiment"] for row in compared)) == SWEPT
    # Data, questions and answers before are shared by all.
    assert [path.parent.name for path in swept.path.glob("results/*/answers_before.jsonl")] == [
        SHARED
    ]
    made_of = [json.loads(swept.read(f"results/{name}/provenance.json")) for name in SWEPT]
    weights = {one["weights"]["tuned"]["sha256"] for one in made_of}
    assert len(weights) == len(SWEPT), "each rate and each order makes another model"


def test_a_diverged_training_is_reported_and_left_out(swept):
    said = (swept.path / "said.txt").read_text()
    done = json.loads(swept.read("results/baseline/finetune.json"))
    lost = done["diverged"]["iteration"]
    losses = rows(swept, "results/baseline/loss.csv")
    assert len(losses) == lost == done["iteration"] and losses[-1]["loss"] in ("nan", "inf")
    assert f"baseline: left out, since its training diverged: the loss of iteration {lost}" in said
    assert f"the loss of iteration {lost} is" in said and "lower train.lr (now 1.0)" in said
    assert not list(swept.path.glob("results/baseline/hf/*.safetensors"))
    assert swept.planned() == {}


def test_the_page_shows_the_sweep(swept):
    page = swept.read("results/report.html").decode()
    section = re.search(r'<section aria-labelledby="sweep">(.*?)</section>', page, re.DOTALL)[1]
    lines = section.split("<tr>")[2:]
    rates = [re.search(r"train\.lr = ([^<]+)<", line)[1] for line in lines]
    trainings = [re.search(r'<td class="num">(\d+)</td>', line)[1] for line in lines]
    assert rates == ["1.0", "0.001", "0.005"] and trainings == ["0", "2", "2"]
    assert page.count(">diverged</span>") == 2, "in the ranking and in the table of trainings"


def test_trackers_show_each_training_and_nothing_depends_on_them(swept):
    for name in (*SWEPT, "baseline"):
        save_dir = swept.path / f"results/{name}/save_dir"
        assert same(shown(save_dir), in_table(save_dir))
    swept.configure(SWEEP)
    assert swept.planned() == {}


def test_a_diverged_training_alone_stops_the_run(swept, tmp_path):
    alone = swept.without(tmp_path / "alone", "baseline", *SWEPT)
    alone.configure(ALONE)
    said = alone.snakemake("results/compare.csv", fails=True)
    assert re.search(r"the loss of iteration \d+ is .*; lower train.lr \(now 1.0\)", said)
    assert "Traceback" not in said
