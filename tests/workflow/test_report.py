"""From finished answers to the page, and a sweep."""

import json
import re

import pandas as pd
from workflow.conftest import SMALL, Checkout


def test_everything_beside_compare_csv_needs_no_model(finished):
    finished.snakemake("all")
    results = finished.path / "results"
    metrics = pd.read_csv(results / "metrics.csv")
    assert set(metrics["experiment"]) == {"baseline", "hot"}
    page = (results / "report.html").read_text(encoding="utf-8")
    assert "Best of 2 experiments" in page and "train.lr" in page
    for name in ("baseline", "hot"):
        provenance = json.loads(finished.read(f"results/{name}/provenance.json"))
        assert provenance["weights"]["base"]["parameters"] > 1e6
        assert {"finetune_model", "answer_prompts, before", "answer_prompts, after"} <= set(
            provenance["seconds"]
        )
        assert b"<svg" in finished.read(f"results/{name}/loss.svg")
    assert finished.read("results/samples.png").startswith(b"\x89PNG")
    assert "Nothing to be done" in finished.snakemake("all")
    before = finished.read("results/compare.csv")
    templates = finished.path / "scripts/mindtune/report/templates/report.css"
    old = templates.read_text()
    templates.write_text(old + "\n")
    printed = finished.snakemake("--dry-run", "all")
    templates.write_text(old)
    assert re.findall(r"^(\w+) +\d+$", printed.split("Job stats:")[1], re.MULTILINE)[:2] == [
        "build_report", "all",
    ]  # fmt: skip
    assert finished.read("results/compare.csv") == before


def test_snakemakes_own_report_holds_the_results(finished, tmp_path):
    finished.snakemake("all")
    archive = tmp_path / "report.html"
    finished.snakemake("--report", str(archive))
    text = archive.read_text(encoding="utf-8")
    for part in ("Comparison", "Training", "Provenance", "compare.csv", "loss.svg", "samples.png"):
        assert part in text, part


def test_a_sweep_shares_all_but_the_training(tmp_path):
    rates = {"baseline": 1.0e-3, "low": 3.0e-4, "high": 3.0e-3}
    experiments = {name: {"train": {"lr": rate}} for name, rate in rates.items()}
    checkout = Checkout.make(tmp_path / "sweep", SMALL | {"experiments": experiments})
    assert checkout.planned() == {
        "draw_scenes": 1, "build_base_model": 1, "convert_data": 1, "select_prompts": 1,
        "prepare_checkpoint": 1, "answer_prompts": 1 + 3, "finetune_model": 3, "export_model": 3,
        "compare_answers": 1,
    }  # fmt: skip
