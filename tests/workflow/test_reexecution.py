"""Partial re-execution: what an edit runs again, exactly. reexecution.yaml has the edits."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import yaml
from mindtune.glue.explain import followers
from mindtune.settings import Settings
from mindtune.settings.reference import keys
from workflow.conftest import ROOT, SMALL, Checkout, merged

TABLE = yaml.safe_load((Path(__file__).with_name("reexecution.yaml")).read_text(encoding="utf-8"))
EXPERIMENTS = tuple(SMALL["experiments"])


def expected(rules, experiments=EXPERIMENTS, settings=True):
    """The jobs that `all` runs when these rules run, as pairs of rule and experiment."""
    found, waiting = set(), [*rules, *(["settings"] if settings else [])]
    while waiting:
        rule = waiting.pop()
        waiting += TABLE["beside"].get(rule, [])
        if rule in TABLE["by_experiment"]:
            found |= {(rule, name) for name in experiments}
        elif rule != "settings":
            found.add((rule, ""))
    return found


def pair(job):
    """A job's rule, with its stage, and its experiment; nothing for what experiments share."""
    name = job.wildcards.get("experiment") or job.wildcards.get("scope") or ""
    stage = job.wildcards.get("stage")
    return (f"{job.rule} ({stage})" if stage else job.rule, "" if name == "shared" else name)


def would_run(checkout):
    return {pair(job) for job in checkout.asked("all")[0].needed()}


def nested(dotted, value):
    for key in reversed(dotted.split(".")):
        value = {key: value}
    return value


@pytest.fixture(scope="module")
def sources(complete, tmp_path_factory):
    place = tmp_path_factory.mktemp("sources")
    shutil.copytree(complete.path / "results/sources", place, dirs_exist_ok=True)
    shutil.copy2(complete.path / "config/data_sources.yaml", place)
    return place


@pytest.fixture(scope="module")
def results_alone(complete, tmp_path_factory):
    """The finished run without Snakemake's own records, as after copying."""
    fresh = Checkout.make(tmp_path_factory.mktemp("alone"))
    shutil.copytree(complete.path / "results", fresh.path / "results")  # keeps times, as cp -a
    return fresh


def edit(checkout, values):
    change = SMALL
    for key, value in values.items():
        change = merged(change, nested(key, value)) if "." in key else change | {key: value}
    checkout.configure(change)


@pytest.fixture
def edited(complete):
    """Change the finished run's configuration; it is put back afterwards."""
    yield partial(edit, complete)
    complete.configure(SMALL)


@pytest.fixture(params=["with .snakemake", "results alone"])
def run(request, complete, results_alone):
    """A finished run whose configuration is put back afterwards."""
    found = complete if request.param == "with .snakemake" else results_alone
    yield found
    found.configure(SMALL)


@pytest.mark.parametrize("key", TABLE["edits"])
def test_an_edit_runs_these_jobs_and_no_others(run, sources, key):
    entry = yaml.safe_load(yaml.safe_dump(TABLE["edits"][key]).replace("$SOURCES", str(sources)))
    if entry["to"] in ("adamw_8bit", "nf4"):  # without it the configuration is refused
        pytest.importorskip("bitsandbytes", reason="pip install -r envs/optimizers.txt")
    values = {key: entry["to"], **entry.get("with", {})}
    edit(run, values)
    plan, causes = run.asked("all")
    assert {pair(job) for job in plan.needed()} == expected(
        entry["runs"], entry.get("only", EXPERIMENTS), entry.get("recorded", True)
    )
    if entry.get("unseen"):
        assert causes == []
        return
    # The key is named, with its value, nothing else is blamed, and it explains every job.
    others = ("what ", "not there: ") if entry.get("new") else ("what ",)
    settings = [cause for cause in causes if not cause.text.startswith(others)]
    assert all(cause.text.startswith(tuple(values)) for cause in settings), causes
    own = [cause for cause in settings if cause.text.startswith(key)]
    assert own, causes
    blamed = {number for cause in causes for number in cause.jobs}
    assert {job.number for job in followers(plan, blamed)} == {job.number for job in plan.needed()}
    if not isinstance(entry["to"], dict | list):
        shown = entry["to"] if isinstance(entry["to"], str) else json.dumps(entry["to"])
        shown = shown.replace("$SOURCES", str(sources))[:59]
        assert [cause.text.split(" -> ")[1][:59] for cause in own] == [shown] * len(own)


def test_every_key_of_the_schema_has_a_line_in_the_table():
    leaves = {key.name for key in keys(Settings) if not key.is_section and "[]" not in key.name}
    told = {*TABLE["edits"], *TABLE["elsewhere"], "experiments", "grid"}  # which are under `also`
    missing = [name for name in leaves if not told & {name, *whole(name)}]
    assert missing == [], "give each an edit in tests/workflow/reexecution.yaml"
    known = {*leaves, *(section for name in leaves for section in whole(name))}
    assert told <= known


def whole(name):
    """The sections that a key lies in."""
    parts = name.split(".")
    return {".".join(parts[:depth]) for depth in range(1, len(parts))}


def test_every_script_has_a_line_in_the_table():
    assert {path.name for path in (ROOT / "scripts").glob("*.py")} == {
        name for name in TABLE["code"] if "/" not in name
    }


def test_comments_order_and_format_of_the_configuration_run_nothing(complete):
    path = complete.path / "config/config.yaml"
    before = path.read_text()
    turned = dict(reversed(yaml.safe_load(before).items()))
    turned["train"] = dict(reversed(turned["train"].items()))
    text = yaml.safe_dump(turned, sort_keys=False, default_flow_style=True)
    again = "# a comment\n" + text.replace("lr: 0.001", "lr:   1e-3   ")
    assert again.count("1e-3") == 1 and yaml.safe_load(text) == yaml.safe_load(before)
    try:
        path.write_text(again)
        for place in [*complete.path.rglob("*.py"), *complete.path.rglob("*.smk")]:
            os.utime(place)
        os.utime(complete.path / "Snakefile")
        assert would_run(complete) == expected(TABLE["also"]["spelling"]["runs"], settings=False)
    finally:
        path.write_text(before)


@pytest.mark.parametrize("by", ["experiments", "grid"])
def test_one_more_experiment_trains_only_that(complete, edited, by):
    more = {"cold": {"train": {"lr": 1e-5}}}
    edited({"experiments": SMALL["experiments"] | more} if by == "experiments" else {
        "grid": {"train.lr": [1e-5]}})  # fmt: skip
    row = TABLE["also"]["one_more_experiment"]
    assert would_run(complete) == expected(row["runs"], row[by])


def test_one_experiment_less_trains_nothing(complete, edited):
    edited({"experiments": {"baseline": {}}})
    assert would_run(complete) == expected(
        TABLE["also"]["one_experiment_less"]["runs"], settings=False
    )


@pytest.mark.parametrize("file", TABLE["code"])
def test_an_edit_of_code_runs_what_depends_on_it(complete, file):
    path = complete.path / "scripts" / file
    before = path.read_text()
    try:
        path.write_text(before + ("\n# an edit\n" if file.endswith(".py") else "\n"))
        plan, causes = complete.asked("all")
    finally:
        path.write_text(before)
    assert {pair(job) for job in plan.needed()} == expected(TABLE["code"][file], settings=False)
    assert [cause.text for cause in causes] == [f"scripts/{file} changed"] * bool(plan.needed())


@pytest.mark.parametrize("with_metadata", [True, False], ids=["with .snakemake", "results alone"])
def test_a_fresh_checkout_with_the_results_copied_over_runs_nothing(
    complete, tmp_path, with_metadata
):
    fresh = Checkout.make(tmp_path / "fresh")
    for path in fresh.path.rglob("*"):
        os.utime(path)  # as `git clone` leaves them
    shutil.copytree(complete.path / "results", fresh.path / "results")  # keeps times, as cp -a
    if with_metadata:
        shutil.copytree(complete.path / ".snakemake", fresh.path / ".snakemake")
    assert would_run(fresh) == set()
