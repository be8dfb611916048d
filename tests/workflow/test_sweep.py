"""A sweep in one command: two rates, three orders of the samples, and a training that diverges."""

import csv
import json
import re

import pytest
from mindtune.settings.checks import SHARED
from workflow.conftest import SMALL, Checkout

SWEPT = [f"lr-{rate}_order_seed-{seed}" for rate in ("0.001", "0.005") for seed in (1, 2, 3)]
# Weights grow a hundredfold in each iteration, until nothing is a number.
WILD = {"train": {"lr": 1.0, "weight_decay": 100.0, "clip_grad": 0.0, "train_iters": 30}}
SWEEP = {
    **SMALL,
    "experiments": {"baseline": {}, "wild": WILD},
    "grid": {"train.lr": [1e-3, 5e-3], "train.order_seed": [1, 2, 3]},
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    checkout = Checkout.make(tmp_path_factory.mktemp("sweep") / "checkout", SWEEP)
    checkout.said = checkout.snakemake("all")
    return checkout


def rows(checkout, name):
    with open(checkout.path / name, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_one_command_compares_all_that_have_a_model(swept):
    compared = rows(swept, "results/compare.csv")
    assert list(dict.fromkeys(row["experiment"] for row in compared)) == ["baseline", *SWEPT]
    # Data, questions and answers before are shared by all.
    assert [path.parent.name for path in swept.path.glob("results/*/answers_before.jsonl")] == [
        SHARED
    ]
    weights = {
        name: json.loads(swept.read(f"results/{name}/provenance.json"))["weights"]["tuned"][
            "sha256"
        ]
        for name in ("baseline", *SWEPT)
    }
    assert len(set(weights.values())) == len(weights), "each order makes another model"


def test_a_diverged_training_is_reported_and_left_out(swept):
    done = json.loads(swept.read("results/wild/finetune.json"))
    lost = done["diverged"]["iteration"]
    losses = rows(swept, "results/wild/loss.csv")
    assert len(losses) == lost == done["iteration"] and losses[-1]["loss"] in ("nan", "inf")
    assert (
        f"wild: left out, since its training diverged: the loss of iteration {lost}" in swept.said
    )
    assert f"the loss of iteration {lost} is" in swept.said and "lower train.lr" in swept.said
    assert not list(swept.path.glob("results/wild/hf/*.safetensors"))
    assert swept.planned() == {}


def test_the_page_shows_the_sweep(swept):
    page = swept.read("results/report.html").decode()
    section = re.search(r'<section aria-labelledby="sweep">(.*?)</section>', page, re.DOTALL)[1]
    lines = [re.sub(r"<[^>]+>", " ", line).split() for line in section.split("<tr>")[2:]]
    trainings = [line[line.index("=") :] for line in lines if "train.lr" in line]
    assert len(lines) == 3, "baseline and its rate are one line, the other rate, and wild"
    assert trainings and "diverged" in section
    assert page.count(">diverged</span>") == 2, "in the ranking and in the table of trainings"


def test_a_diverged_training_alone_stops_the_run(swept, tmp_path):
    alone = swept.without(tmp_path / "alone", "baseline", "wild", *SWEPT)
    alone.configure({**SMALL, "experiments": {"baseline": WILD}})
    said = alone.snakemake("results/compare.csv", fails=True)
    assert re.search(r"the loss of iteration \d+ is .*; lower train.lr \(now 1.0\)", said)
    assert "Traceback" not in said
