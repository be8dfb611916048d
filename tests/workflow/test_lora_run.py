"""config/demo-lora.yaml in miniature: both forms of export, and what an edit runs again."""

import json

import pytest
import yaml
from mindtune.checkpoint.peft_adapter import is_adapter
from workflow.conftest import ROOT, SMALL, Checkout, merged

DEMO = yaml.safe_load((ROOT / "config/demo-lora.yaml").read_text(encoding="utf-8"))
ADAPTED = {"lora": DEMO["train"]["lora"], "lr": DEMO["train"]["lr"]}
LORA = merged(SMALL, {"experiments": {"baseline": None, "hot": None}}) | {
    "experiments": {"small": {"train": ADAPTED}}
}
TABLE = yaml.safe_load((ROOT / "tests/workflow/reexecution.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    checkout = Checkout.make(tmp_path_factory.mktemp("lora") / "run", LORA)
    checkout.snakemake("results/compare.csv")
    return checkout


def planned(checkout, change):
    checkout.configure(merged(LORA, change))
    try:
        plan, _ = checkout.asked("results/compare.csv")
        return {
            f"{job.rule} ({job.wildcards['stage']})" if job.rule == "answer_prompts" else job.rule
            for job in plan.needed()
        }
    finally:
        checkout.configure(LORA)


@pytest.mark.parametrize(
    ("edit", "row"),
    [
        ({"experiments": {"small": {"train": {"lora": {"rank": 8}}}}}, "train"),
        ({"experiments": {"small": {"train": {"lora": {"dropout": 0.1}}}}}, "train"),
        ({"experiments": {"small": {"train": {"lora": None}}}}, "train"),
        ({"export": "adapter"}, "export"),
    ],
    ids=["rank", "dropout", "without", "export"],
)
def test_an_edit_runs_what_it_must(trained, edit, row):
    rows = {"train": TABLE["sets"]["train"], "export": TABLE["also"]["export_of_adapters"]["runs"]}
    assert planned(trained, edit) == {*rows[row]}


def test_vllm_answers_from_the_adapter_without_a_merge(trained):
    edit = {"export": "adapter", "answer": {"engine": "vllm"}, "vllm": {"python": "python3"}}
    answers = {"answer_prompts (before)", "answer_prompts (after)"}
    assert planned(trained, edit) == {"export_model", *answers, "compare_answers"}
    trained.configure(merged(LORA, edit))
    plan, _ = trained.asked("results/small/provenance.json")
    (job,) = [job for job in plan.needed() if job.wildcards.get("stage") == "after"]
    assert job.files["model"] == "results/small/hf"
    assert job.files["hf"] == "results/sources/Qwen2-VL-demo"
    assert not any(job.rule == "merge_adapter" for job in plan.needed())
    trained.configure(LORA)


def test_an_adapter_that_is_exported_gives_the_answers_of_the_merged_model(trained):
    size = sum(path.stat().st_size for path in (trained.path / "results/small/hf").glob("*.safet*"))
    before = trained.read("results/small/answers_after.jsonl")
    merged_files = {path.name: path.read_bytes()
                    for path in (trained.path / "results/small/hf").glob("*.safetensors")}  # fmt: skip
    trained.configure(LORA | {"export": "adapter"})
    trained.snakemake("results/compare.csv")
    exported = trained.path / "results/small/hf"
    assert is_adapter(exported) and (exported / "tokenizer.json").is_file()
    assert (exported / "adapter_model.safetensors").stat().st_size < 0.05 * size
    config = json.loads((exported / "adapter_config.json").read_text())
    assert (config["r"], config["base_model_name_or_path"]) == (16, "results/sources/Qwen2-VL-demo")
    for name, content in merged_files.items():
        assert trained.read(f"results/small/merged/{name}") == content
    said = [json.loads(line)["answer"] for line in before.splitlines()]
    after = trained.read("results/small/answers_after.jsonl").splitlines()
    assert [json.loads(line)["answer"] for line in after] == said
    assert trained.planned() == {}
    trained.configure(LORA)
