"""An answering engine is a folder and a line: one is added to a copy, and answers in the workflow."""

import json

from workflow.conftest import SMALL, merged

ANSWERS = "results/shared/answers_before.jsonl"
LINE = """
ENGINES["toy"] = Engine("toy", answers_from="hf", machine="hf", keys={"answer": ("threads",)})
"""
TOY = '''
"""It says how many words it was asked."""

import json

from mindtune.engines.requests import AnswerJob, answered
from mindtune.files import read_json_lines, writing


def answer(job: AnswerJob) -> None:
    assert (job.model_dir / "config.json").is_file() and set(job.plain()["machine"]) == {"threads"}
    with writing(job.answers) as handle:
        for prompt in read_json_lines(job.prompts):
            said = str(len(prompt["prompt"].split()))
            line = answered(prompt, answer=said, tokens=1, cut=False, seconds=0)
            handle.write(json.dumps(line, ensure_ascii=False) + "\\n")
'''


def lines(checkout, name):
    return [json.loads(line) for line in checkout.read(name).decode().splitlines()]


def test_an_answering_engine_is_a_folder_and_a_line(finished, tmp_path):
    checkout = finished.without(tmp_path / "with a toy")
    engines = checkout.path / "scripts/mindtune/engines"
    (engines / "toy").mkdir()
    (engines / "toy/__init__.py").touch()
    (engines / "toy/answer.py").write_text(TOY)
    with open(engines / "__init__.py", "a", encoding="utf-8") as registry:
        registry.write(LINE)

    checkout.configure(merged(SMALL, {"answer": {"engine": "toy"}}))
    plan, _ = checkout.asked("results/compare.csv")
    asked = [job for job in plan.jobs if job.rule == "answer_prompts"]
    assert len(asked) == 3 and {job.params["engine"] for job in asked} == {"toy"}
    assert {job.rule for job in plan.jobs if "toy" in job.params.values()} == {"answer_prompts"}

    checkout.snakemake(ANSWERS)
    prompts = lines(checkout, "results/shared/prompts.jsonl")
    found = lines(checkout, ANSWERS)
    assert [line["id"] for line in found] == [prompt["id"] for prompt in prompts]
    assert [line["answer"] for line in found] == [
        str(len(prompt["prompt"].split())) for prompt in prompts
    ]
    # An edit of it answers again; those of the other engines do not.
    assert "Nothing to be done" in checkout.snakemake(ANSWERS)
    for name, runs in (("hf/answer.py", 0), ("toy/answer.py", 1)):
        with open(engines / name, "a", encoding="utf-8") as source:
            source.write("# edited\n")
        plan, _ = checkout.asked(ANSWERS)
        assert sum(job.rule == "answer_prompts" for job in plan.needed()) == runs, name

    checkout.configure(merged(SMALL, {"engine": "toy"}))
    said = checkout.snakemake(ANSWERS, fails=True)
    assert 'engine is "toy", but must be one of hf, mindspeed.' in said
