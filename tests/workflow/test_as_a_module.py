"""The workflow as a module of another one, and from another directory; its machine's accelerator."""

import json
import shutil

import forking
import pytest
import yaml
from workflow.conftest import ROOT, SMALL, Checkout

OUTER = """
configfile: "outer.yaml"

module tune:
    snakefile: {snakefile!r}
    config: config["tune"]

use rule * from tune as tune_*

onstart:
    tune.onstart()

onsuccess:
    tune.onsuccess()

rule count_rows:
    default_target: True
    input: "results/compare.csv"
    output: "rows.txt"
    shell: "wc -l < {{input}} > {{output}}"
"""
TRIGGERS = ("--rerun-triggers", "mtime", "params", "input")


def snakemake(place, *arguments, fails=False):
    status, said = forking.snakemake(place, ("--cores", "1", *arguments), 300)
    assert (status != 0) == fails, said
    return said


@pytest.fixture
def outer(finished, tmp_path):
    """Another workflow, in whose directory the small run's results are."""
    place = tmp_path / "outer"
    place.mkdir()
    for name in ("results", ".snakemake"):
        shutil.copytree(finished.path / name, place / name, symlinks=True)
    settings = yaml.safe_load((finished.path / "config/config.yaml").read_text(encoding="utf-8"))
    (place / "outer.yaml").write_text(
        yaml.safe_dump({"tune": settings}, sort_keys=False), encoding="utf-8"
    )
    inner = Checkout.make(tmp_path / "inner").path / "Snakefile"
    (place / "Snakefile").write_text(OUTER.format(snakefile=str(inner)), encoding="utf-8")
    return place


def test_as_a_module_it_makes_what_another_workflow_asks_for(outer):
    answers = (outer / "results/compare.csv").read_bytes()
    (outer / "results/compare.csv").unlink()
    said = snakemake(outer, *TRIGGERS)
    assert "2 of 2 steps (100%) done" in said
    assert (outer / "results/compare.csv").read_bytes() == answers
    assert int((outer / "rows.txt").read_text()) == len(answers.splitlines())
    kept = [json.loads(path.read_text()) for path in outer.glob(".snakemake/mindtune/*/*.json")]
    assert any("common" in settings for settings in kept)  # its onstart ran
    assert "Nothing to be done" in snakemake(outer, *TRIGGERS)
    edit = yaml.safe_load((outer / "outer.yaml").read_text(encoding="utf-8"))
    edit["tune"]["train"]["lr"] = 7e-4
    (outer / "outer.yaml").write_text(yaml.safe_dump(edit, sort_keys=False), encoding="utf-8")
    planned = snakemake(outer, "-n", *TRIGGERS)
    assert "tune_finetune_model" in planned
    assert "tune_convert_data" not in planned


def test_a_mistake_in_a_module_s_section_is_a_sentence(outer):
    (outer / "outer.yaml").write_text("tune: { train: { lr: fast } }\n", encoding="utf-8")
    said = snakemake(outer, "-n", fails=True)
    assert 'train.lr is "fast", but must be a number.' in said
    assert "Traceback" not in said


def test_with_s_it_runs_in_any_directory(tmp_path):
    snakefile = str(ROOT / "Snakefile")
    said = snakemake(tmp_path, "-s", snakefile, "-n", "results/compare.csv")
    assert "finetune_model" in said  # by the workflow's own configuration
    (tmp_path / "config").mkdir()
    experiments = {"experiments": {"here": {}}}
    (tmp_path / "config/config.yaml").write_text(
        yaml.safe_dump(SMALL | experiments), encoding="utf-8"
    )
    said = snakemake(tmp_path, "-s", snakefile, "-n", "results/compare.csv")
    assert "results/here/finetune.json" in said


# Says what rules ask for, and how much of it there is.
PROBE = """
include: {snakefile!r}

for rule in workflow.rules:
    if rule.name in ("finetune_model", "answer_prompts", "convert_data"):
        found = rule.resources.get("accelerator")
        print("ASKED", rule.name, (found.value if found else 0) or 0)
limit = workflow.global_resources.get("accelerator")
print("LIMIT", limit.value if limit else None)
"""


@pytest.mark.parametrize(
    ("settings", "options", "asked", "limit"),
    [
        ({}, (), 0, None),
        ({"hf": {"device": "cuda"}}, (), 1, 1),
        ({"hf": {"device": "npu:1"}}, ("--resources", "accelerator=2"), 1, 2),
        ({"engine": "mindspeed", "sources": {"model": {"use": "official"}}}, (), 1, 1),
        ({"hf": {"device": "cuda"}}, ("--profile", "profiles/generic"), 1, None),
        ({"hf": {"device": "cuda"}}, ("--profile", "profiles/slurm"), 1, None),
    ],
)
def test_what_takes_an_accelerator_says_so_and_a_machine_has_one(
    tmp_path, settings, options, asked, limit
):
    checkout = Checkout.make(tmp_path / "checkout", settings)
    (checkout.path / "probe.smk").write_text(
        PROBE.format(snakefile=str(checkout.path / "Snakefile")), encoding="utf-8"
    )
    said = snakemake(checkout.path, "-s", "probe.smk", "-n", *options).splitlines()
    assert {line for line in said if line.startswith(("ASKED", "LIMIT"))} == {
        f"ASKED finetune_model {asked}", f"ASKED answer_prompts {asked}", "ASKED convert_data 0",
        f"LIMIT {limit}",
    }  # fmt: skip
