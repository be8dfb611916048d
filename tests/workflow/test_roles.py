"""Who trains and who answers: `engine` and `answer.engine`."""

import pytest
from workflow.conftest import ROOT, SMALL, Checkout, merged

MACHINE = "results/framework/machine.json"
MINDSPEED = {
    "engine": "mindspeed",
    "mindspeed": {"stand_in": str(ROOT / "tests/standin"), "set_env": None},
    "train": {"eval_iters": 0},
}


def jobs(path, change):
    """The jobs that results/compare.csv needs, by rule and stage."""
    one = {section: keys for section, keys in SMALL.items() if section != "experiments"}
    plan, _ = Checkout.make(path, merged(one, change)).asked("results/compare.csv")
    return {
        " ".join([job.rule, *filter(None, [job.wildcards.get("stage")])]): job for job in plan.jobs
    }


@pytest.mark.parametrize("who", [None, "mindspeed"])
def test_the_engine_that_trains_answers_by_default(tmp_path, who):
    change = MINDSPEED | ({"answer": {"engine": who}} if who else {})
    planned = jobs(tmp_path, change)
    for stage in ("before", "after"):
        job = planned[f"answer_prompts {stage}"]
        assert job.params["engine"] == "mindspeed" and MACHINE in job.inputs
    assert "results/baseline/finetune.json" in planned["answer_prompts after"].inputs


def test_what_mindspeed_trained_hf_answers_from_its_export(tmp_path):
    planned = jobs(tmp_path, merged(MINDSPEED, {"answer": {"engine": "hf"}}))
    assert planned["finetune_model"].params["engine"] == "mindspeed"
    assert MACHINE in planned["finetune_model"].inputs
    before, after = (planned[f"answer_prompts {stage}"] for stage in ("before", "after"))
    assert before.params["machine"] == after.params["machine"] == {
        "device": "cpu", "precision": "fp32", "threads": 1,
    }  # fmt: skip
    assert not {MACHINE, "results/baseline/finetune.json"} & {*before.inputs, *after.inputs}
    assert "results/baseline/hf" in after.inputs and "results/shared/mm" not in before.inputs


def test_what_hf_trained_mindspeed_answers_from_its_checkpoints(tmp_path):
    planned = jobs(tmp_path, merged(MINDSPEED, {"engine": "hf", "answer": {"engine": "mindspeed"}}))
    assert planned["finetune_model"].params["engine"] == "hf" and "doctor" in planned
    assert MACHINE not in planned["finetune_model"].inputs
    before, after = (planned[f"answer_prompts {stage}"] for stage in ("before", "after"))
    assert before.params["engine"] == after.params["engine"] == "mindspeed"
    assert MACHINE in before.inputs and "results/shared/mm" in before.inputs
    assert {MACHINE, "results/baseline/finetune.json"} <= {*after.inputs}


@pytest.mark.parametrize("trains", [{}, MINDSPEED])
def test_vllm_answers_from_the_export_of_whoever_trains(tmp_path, trains):
    section = {"python": "/opt/vllm/bin/python", "device": "cpu", "arguments": ["--max-num-seqs=8"]}
    planned = jobs(tmp_path, merged(trains, {"answer": {"engine": "vllm"}, "vllm": section}))
    before, after = (planned[f"answer_prompts {stage}"] for stage in ("before", "after"))
    own = {"device": "cpu", "arguments": ["--max-num-seqs=8"]}  # the Python makes no other answers
    assert before.params["machine"] == after.params["machine"] == own
    assert before.params["engine"] == "vllm" and before.params["parallel"] is None
    assert "results/baseline/hf" in after.inputs and MACHINE not in after.inputs
    assert "install_vllm" not in planned
    assert not any("results/shared/mm" in job.inputs for job in (before, after))


def test_vllm_is_installed_where_no_python_is_named(tmp_path):
    record = "results/framework/vllm.json"
    planned = jobs(tmp_path, {"answer": {"engine": "vllm"}})
    assert record in planned["install_vllm"].outputs
    for stage in ("before", "after"):
        job = planned[f"answer_prompts {stage}"]
        assert record in job.inputs and job.params["machine"] == {}


def test_converters_belong_to_no_engine(tmp_path):
    """Who trains is no reason to convert again."""
    first, second = (
        jobs(tmp_path / str(number), change)["prepare_checkpoint"].params
        for number, change in enumerate([{}, MINDSPEED])
    )
    assert dict(first) == dict(second) and first["converter"] == "mindtune"
