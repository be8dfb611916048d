"""Why jobs would run, from made-up plans; tests/workflow asks the real workflow."""

import re
from pathlib import Path

import pytest
from mindtune.glue.explain import (
    CONSTANT,
    KEYS,
    causes,
    changed_settings,
    duration,
    explanation,
    seconds_of,
)
from mindtune.glue.plan import Job, Plan
from mindtune.settings import Settings
from mindtune.settings.reference import keys
from write_reference import ROOT

TRAIN = {"lr": 0.001, "seed": 1}


def job(number, rule, **given):
    plain = {
        "wildcards": {}, "needed": True, "params": {}, "recorded_params": [], "inputs": [],
        "recorded_inputs": [], "missing": [], "newer": [], "incomplete": False, "benchmark": None,
        "needs": [],
    }  # fmt: skip
    return Job(number, rule, **{**plain, **given})


def params(**values):
    """A job with these parameters, and with others recorded."""
    return job(0, "finetune_model", params=values.pop("now"), recorded_params=values.pop("old"))


def told(*jobs, code=None, config=None):
    plan = Plan(jobs, config or {})
    return [cause.text for cause in causes(plan, (code or {}).get)]


def test_parameters_find_their_old_values_without_names():
    now = {"engine": "hf", "train": TRAIN, "machine": {"threads": 1}, "code": "0123456789abcdef"}
    old = ["'fedcba9876543210'", "{'lr': 0.002, 'seed': 1}", "{'threads': 1}", "'hf'"]
    assert list(changed_settings(params(now=now, old=old))) == [
        ("train.lr", 0.002, 0.001),
        ("code", "fedcba9876543210", "0123456789abcdef"),
    ]


def test_another_engine_is_told_and_not_each_key_of_its_machine():
    now = {"engine": "hf", "machine": {"threads": 1}}
    found = list(changed_settings(params(now=now, old=["'mindspeed'", "{'nodes': 2}"])))
    assert found == [("engine", "mindspeed", "hf")]


@pytest.mark.parametrize(
    ("now", "old", "text"),
    [
        ({"train": TRAIN}, ["{'lr': 0.001}"], "train.seed: nothing -> 1"),
        ({"train": {"lr": 0.001}}, [repr(TRAIN)], "train.seed: 1 -> nothing"),
        ({"demo": {"seed": 2}}, ["{'seed': 1}"], "sources.demo.seed: 1 -> 2"),
        ({"confidence": 0.9}, ["0.95"], "compare.confidence: 0.95 -> 0.9"),
        ({"data": {"max_samples": None}}, ["{'max_samples': 5}"], "data.max_samples: 5 -> null"),
        ({"data": {"check_pictures": "a"}}, ["{'check_pictures': 'b'}"],
         "data.check_pictures: b -> a"),
        ({"experiments": ["a", "b"]}, ["['a']"], 'experiments: ["a"] -> ["a", "b"]'),
        ({"code": "0123456789abcdef"}, ["'fedcba9876543210'"],
         "the code of finetune_model changed"),
        ({"config": {"train": TRAIN}}, ["{'train': {'lr': 0.001, 'seed': 2}}"],
         "train.seed: 2 -> 1"),
    ],
)  # fmt: skip
def test_what_changed_in_words(now, old, text):
    assert told(params(now=now, old=old)) == [text]


def test_a_key_of_an_experiment_is_named_where_it_stands():
    made = {"params": {"train": TRAIN}, "recorded_params": ["{'lr': 0.002, 'seed': 1}"]}
    jobs = [
        job(number, "finetune_model", wildcards={"experiment": name}, **made)
        for number, name in enumerate(("baseline", "hot"))
    ]
    config = {"experiments": {"baseline": None, "hot": {"train": {"lr": 0.001}}}}
    assert told(*jobs, config=config) == [
        "train.lr: 0.002 -> 0.001",
        "experiments.hot.train.lr: 0.002 -> 0.001",
    ]


def test_changed_files_of_code_are_named():
    changed = params(now={"code": "0123456789abcdef"}, old=["'fedcba9876543210'"])
    code = {
        "fedcba9876543210": {"a.py": "1", "b.py": "1", "c.py": "1"},
        "0123456789abcdef": {"a.py": "1", "b.py": "2", "d.py": "1"},
    }
    assert told(changed, code=code) == [
        "scripts/b.py changed",
        "scripts/c.py is no longer used by finetune_model",
        "scripts/d.py is now used by finetune_model",
    ]


def test_files_that_are_missing_newer_half_done_or_others():
    assert told(
        job(0, "convert_data", missing=["a", "b"], recorded_params=None),
        job(1, "select_prompts", missing=["c", "d", "e"], recorded_params=None),
    ) == ["not there: a, b, c and 2 more files"]
    assert told(job(0, "convert_data", newer=["x.json"])) == ["x.json changed after it was used"]
    assert told(job(0, "convert_data", incomplete=True)) == ["convert_data was broken off"]
    for now, old, text in (
        (["b"], ["a"], "what convert_data reads: a -> b"),
        (["a"], ["a", "b"], "what convert_data reads: no longer b"),
        (["a", "b"], ["a"], "what convert_data reads: b too"),
    ):
        assert told(job(0, "convert_data", inputs=now, recorded_inputs=old)) == [text]


def benchmark(tmp_path, name, *seconds):
    path = tmp_path / name
    path.write_text("s\th:m:s\n" + "".join(f"{value}\t-\n" for value in seconds))
    return str(path)


def test_times_are_a_jobs_own_or_the_median_of_its_rule(tmp_path):
    own = benchmark(tmp_path, "own.tsv", 10)
    benchmark(tmp_path, "other.tsv", 20, 40)
    assert seconds_of(job(0, "r", benchmark=own)) == 10
    assert seconds_of(job(0, "r", benchmark=str(tmp_path / "new.tsv"))) == 20
    assert seconds_of(job(0, "r", benchmark=str(tmp_path / "elsewhere/new.tsv"))) is None
    assert seconds_of(job(0, "r")) is None
    Path(own).write_text("damaged\n")
    assert seconds_of(job(0, "r", benchmark=own)) is None
    assert [duration(value) for value in (0.2, 71.7, 1500, 12600)] == [
        "1 s",
        "72 s",
        "25 min",
        "3.5 h",
    ]


def test_the_explanation_is_aligned_and_adds_up(tmp_path):
    changed = {"params": {"train": TRAIN}, "recorded_params": ["{'lr': 0.002, 'seed': 1}"]}
    jobs = [
        job(0, "prepare_checkpoint", needed=False),
        job(1, "finetune_model", wildcards={"experiment": "hot"}, needs=[0],
            benchmark=benchmark(tmp_path, "hot.tsv", 70), **changed),
        job(2, "answer_prompts", wildcards={"scope": "hot", "stage": "after"}, needs=[1],
            benchmark=benchmark(tmp_path, "after.tsv", 8.4)),
        job(3, "compare_answers", needs=[2]),
    ]  # fmt: skip
    assert explanation(Plan(jobs), {}.get) == (
        "train.lr: 0.002 -> 0.001\n"
        "  runs finetune_model   hot         about 70 s\n"
        "       answer_prompts   after, hot  about 8 s\n"
        "       compare_answers              not measured\n"
        "\n"
        "3 jobs, about 78 s one after another, by what they took before; not measured: "
        "compare_answers."
    )


def test_nothing_to_run_and_nothing_known_are_said():
    idle = job(0, "convert_data", needed=False)
    assert explanation(Plan([idle]), {}.get) == "Nothing would run: all is up to date."
    copied = job(0, "convert_data", needed=False, recorded_params=None)
    assert "\n1 result without a record of the settings" in explanation(Plan([copied]), {}.get)
    assert explanation(Plan([job(0, "a")]), {}.get).startswith("asked for\n  runs a")


def test_every_parameter_of_the_rules_has_a_key():
    known = {key.name for key in keys(Settings)} | {""}
    assert set(KEYS.values()) <= known
    named = set()
    for path in (ROOT / "rules").glob("*.smk"):
        for block in re.findall(r"^    params:\n((?: {8}.*\n)+)", path.read_text(), re.MULTILINE):
            named |= set(re.findall(r"^ {8}(\w+)=", block, re.MULTILINE))
    assert {"train", "code", "demo"} <= named
    told = {*KEYS, *CONSTANT, "code", "machine"}
    assert [name for name in named - told if name not in known] == []
