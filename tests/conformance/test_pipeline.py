"""The whole pipeline with engine mindspeed, on the real MindSpeed-MM and the demo's tiny model.

Its one stand-in is `tests/standin`, for the NPU. Each run goes through Snakemake, from an installation
that is checked to compare.csv. Set MINDSPEED_MM_HOME and MINDSPEED_MM_PYTHON.
"""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from mindtune.engines.journal import parsed
from mindtune.engines.learning_rate import learning_rate
from mindtune.files import read_json_lines
from mindtune.settings.typed import typed
from safetensors import safe_open
from tiny_qwen25 import write_base as write_qwen25
from workflow.conftest import Checkout, merged

HOME = os.environ.get("MINDSPEED_MM_HOME")
ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.mindspeed,
    pytest.mark.skipif(
        not HOME,
        reason="the pipeline was not run on the real MindSpeed-MM: MINDSPEED_MM_HOME is not set",
    ),
]
LIMIT_S = 1500
TUTORIAL = {
    "train_iters": 100, "save_interval": 50, "eval_interval": 50, "eval_iters": 0,
    "micro_batch_size": 1, "global_batch_size": 24, "lr": 1.0e-5,
}  # fmt: skip
SHORT = TUTORIAL | {
    "train_iters": 6, "save_interval": 3, "eval_interval": 3, "global_batch_size": 4, "lr": 1.0e-3,
}  # fmt: skip
# One LLM layer beside the vision encoder, three on the second stage.
STAGES = {"llm_pp_layers": [[1, 3]], "vit_pp_layers": [[4, 0]]}


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """A copy of the framework, which compiles a helper into its own tree."""
    place = tmp_path_factory.mktemp("framework") / "MindSpeed-MM"
    shutil.copytree(HOME, place, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    return place


def settings(home: Path, train: dict, **machine) -> dict:
    return {
        "engine": "mindspeed",
        "sources": {"demo": {"pictures": 120, "text_only": 3}},
        "data": {"held_out_fraction": 0.1},
        "train": train,
        "answer": {"max_new_tokens": 24},
        "prompts": {"held_out_questions": 4},
        "experiments": {"baseline": {}},
        "mindspeed": {
            "home": str(home),
            "python": os.environ.get("MINDSPEED_MM_PYTHON", "python3.10"),
            "set_env": None,
            "stand_in": str(ROOT / "tests" / "standin"),
            "num_workers": 1,
            "preprocessing_num_workers": 2,
        }
        | machine,
    }


def make(path: Path, config: dict) -> Checkout:
    return Checkout.make(path, config)


def table(checkout: Checkout, name: str) -> list[dict]:
    with open(checkout.path / name, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def run(checkout: Checkout, *arguments: str, fails: bool = False) -> str:
    """arguments: what is to be there, without any compare.csv."""
    done = subprocess.run(
        checkout.command(*(arguments or ["results/compare.csv"])), cwd=checkout.path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S,
    )  # fmt: skip
    assert (done.returncode != 0) == fails, done.stdout[-6000:] + tail_of_logs(checkout)
    return done.stdout


def tail_of_logs(checkout: Checkout) -> str:
    return "".join(
        f"\n== {path.name}\n" + "\n".join(path.read_text().splitlines()[-25:])
        for path in checkout.path.glob("logs/**/*.log")
    )


def kill_when(checkout: Checkout, log: str, text: str) -> None:
    """Start the pipeline, and kill all of it once a log says something."""
    process = subprocess.Popen(
        checkout.command("results/compare.csv"), cwd=checkout.path, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + LIMIT_S
    path = checkout.path / log
    while not (path.is_file() and text in path.read_text(errors="replace")):
        assert process.poll() is None, tail_of_logs(checkout)
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def tutorial(home, tmp_path_factory):
    """The tutorial's 100 iterations, killed after the first checkpoint and gone on with."""
    checkout = make(tmp_path_factory.mktemp("tutorial"), settings(home, TUTORIAL))
    kill_when(checkout, "logs/finetune_model/baseline.log", "iteration       57/")
    first = (checkout.path / "logs/finetune_model/baseline.log").read_text(errors="replace")
    checkout.snakemake("--unlock")
    run(checkout)
    return checkout, first


def test_the_tutorial_comes_to_its_end_over_a_kill(tutorial):
    checkout, _ = tutorial
    rows = table(checkout, "results/compare.csv")
    assert (
        len(rows) == 5 and rows[0]["prompt"] == "What feature can be seen on the back of the bus?"
    )
    assert "(" in rows[0]["before"]  # the base points
    done = json.loads((checkout.path / "results/baseline/finetune.json").read_text())
    assert done["iteration"] == 100
    assert checkout.planned() == {}


def test_fifty_and_fifty_iterations_have_the_learning_rates_of_a_hundred(tutorial):
    checkout, _ = tutorial
    assert "resuming from iteration 50" in (
        checkout.path / "logs/finetune_model/baseline.log"
    ).read_text(errors="replace")
    rows = table(checkout, "results/baseline/loss.csv")
    assert [int(row["iteration"]) for row in rows] == list(range(1, 101))
    train = {"min_lr": 0.0, "lr_decay_style": "cosine", "lr_warmup_fraction": 0.1, **TUTORIAL}
    for row in rows:
        exact = learning_rate(int(row["iteration"]), typed("train", train))
        assert float(row["lr"]) == pytest.approx(float(f"{exact:.6E}"), rel=2e-6, abs=1e-20)


def test_iterations_that_ran_twice_had_the_same_loss(tutorial):
    """Those between the checkpoint and the kill: optimizer, weights and samples were as they had been."""
    from mindtune.engines.mindspeed.training_log import parse_iteration

    checkout, first = tutorial
    again = {int(row["iteration"]): float(row["loss"])
             for row in table(checkout, "results/baseline/loss.csv")}  # fmt: skip
    lines = [line.split(" ", 2)[2] for line in first.splitlines() if "iteration " in line]
    before = {found.iteration: found.loss for line in lines if (found := parse_iteration(line))}
    assert {n for n in before if n > 50} >= {51, 52, 53, 54, 55, 56}
    assert {n: before[n] for n in before} == {n: again[n] for n in before}


def test_the_framework_is_left_as_it_was(tutorial, home):
    made = {
        str(path.relative_to(home))
        for path in home.rglob("*")
        if path.is_file() and not (Path(HOME) / path.relative_to(home)).exists()
    }
    # Megatron compiles this one itself, before each training; Python keeps what it compiled.
    assert {name for name in made if "__pycache__" not in name} <= {
        name for name in made if "/datasets/helpers" in name
    }


@pytest.fixture(scope="module")
def one(home, tmp_path_factory):
    """A short undisturbed run of one process."""
    checkout = make(tmp_path_factory.mktemp("one"), settings(home, SHORT))
    run(checkout)
    return checkout


@pytest.mark.parametrize(
    "parallel",
    [
        pytest.param({}, id="dp 2"),
        pytest.param({"tensor_model_parallel_size": 2}, id="tp 2"),
        pytest.param(STAGES, id="pp 2"),
    ],
)
def test_two_processes_do_what_one_does(home, tmp_path, one, parallel):
    config = settings(home, SHORT, npus_per_node=2)
    checkout = make(tmp_path, merged(config, {"parallel": parallel}))
    run(checkout)
    wanted = [float(row["loss"]) for row in table(one, "results/baseline/loss.csv")]
    found = [float(row["loss"]) for row in table(checkout, "results/baseline/loss.csv")]
    assert found == pytest.approx(wanted, rel=0.01)
    before = [row["before"] for row in table(one, "results/compare.csv")]
    assert [row["before"] for row in table(checkout, "results/compare.csv")] == before


def test_a_killed_run_ends_in_the_same_bytes(home, tmp_path, one):
    checkout = make(tmp_path, settings(home, SHORT))
    kill_when(checkout, "logs/finetune_model/baseline.log", "successfully saved checkpoint")
    checkout.snakemake("--unlock")
    run(checkout)
    shards = sorted(path.name for path in (one.path / "results/baseline/hf").glob("*.safetensors"))
    assert shards
    for shard in shards:
        name = f"results/baseline/hf/{shard}"
        assert checkout.read(name) == one.read(name)
    assert checkout.read("results/compare.csv") == one.read("results/compare.csv")


def exported(checkout: Checkout) -> dict[str, tuple]:
    """All tensors of the exported model, bit for bit; whose file they are in is no matter."""
    found = {}
    for path in sorted(checkout.path.glob("results/baseline/hf/*.safetensors")):
        with safe_open(path, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (no mapping)
                tensor = tensors.get_tensor(name)
                bits = tensor.contiguous().view(torch.uint8).numpy().tobytes()
                found[name] = (str(tensor.dtype), tuple(tensor.shape), bits)
    return found


def test_the_frameworks_converter_and_script_do_it_too(home, tmp_path, one):
    config = settings(home, SHORT, converter="mm-convert", inference="script")
    checkout = make(tmp_path, merged(config, {"prompts": {"held_out_questions": 1}}))
    run(checkout)
    for rule in ("prepare_checkpoint/shared", "export_model/baseline"):
        assert "equal, bit for bit" in (checkout.path / f"logs/{rule}.log").read_text()
    assert exported(checkout) == exported(one)
    assert len(table(checkout, "results/compare.csv")) == 2


def test_a_qwen25_goes_through_all_of_it(home, tmp_path):
    """Trained with its windows, exported and answered from; the answers are learnt."""
    base = write_qwen25(tmp_path / "Qwen2.5-VL-tiny")
    config = merged(
        settings(home, SHORT), {"sources": {"model": {"use": "path", "path": str(base)}}}
    )
    checkout = make(tmp_path / "run", config)
    run(checkout)
    losses = [float(row["loss"]) for row in table(checkout, "results/baseline/loss.csv")]
    assert len(losses) == 6 and losses[-1] < losses[0]
    rows = table(checkout, "results/compare.csv")
    assert len(rows) == 5 and any(row["before"] != row["after"] for row in rows)
    launch = (checkout.path / "results/baseline/save_dir/run/launch.sh").read_text()
    assert "--use-flash-attn" not in launch
    exported = json.loads((checkout.path / "results/baseline/hf/config.json").read_text())
    assert exported["model_type"] == "qwen2_5_vl"
    processor = checkout.path / "results/baseline/save_dir/run/processor"
    assert json.loads((processor / "config.json").read_text())["model_type"] == "qwen2_vl"


def test_adapters_are_trained_exported_and_answered_from(home, tmp_path):
    """Trained by the framework, taken up after the first checkpoint, and answered by the hf engine."""
    config = settings(home, SHORT | {"lora": {"rank": 8}})
    config["answer"]["engine"] = "hf"
    checkout = make(tmp_path, config | {"export": "adapter"})
    kill_when(checkout, "logs/finetune_model/baseline.log", "successfully saved checkpoint")
    checkout.snakemake("--unlock")
    run(checkout)
    assert "resuming from iteration 3" in (
        checkout.path / "logs/finetune_model/baseline.log"
    ).read_text(errors="replace")
    adapter = json.loads((checkout.path / "results/baseline/hf/adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"]) == (8, 16)
    names = checkout.path.glob("results/baseline/merged/*.safetensors")
    assert [path.name for path in names] and len(table(checkout, "results/compare.csv")) == 5


QUESTIONS = "results/shared/answers_before.jsonl"


def test_a_killed_answering_asks_only_what_is_missing(home, tmp_path, one):
    """Killed with all that it started at a moment that is drawn, it ends with the answers of an undisturbed one."""
    seed = random.SystemRandom().randrange(1000)
    after = random.Random(seed).randrange(1, 12)
    print(f"seed {seed}: killed after {after} of 13 answers")
    checkout = Checkout(tmp_path / "other")
    shutil.copytree(one.path, checkout.path, symlinks=True)
    checkout.configure(merged(settings(home, SHORT), {"prompts": {"held_out_questions": 12}}))
    run(checkout, QUESTIONS)
    undisturbed = read_json_lines(checkout.path / QUESTIONS)
    assert len(undisturbed) == 13
    (checkout.path / QUESTIONS).unlink()
    shared = checkout.path / "results/shared"
    process = subprocess.Popen(
        checkout.command(QUESTIONS), cwd=checkout.path, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + LIMIT_S
    while (kept := len(journal_of(shared))) < after:
        assert process.poll() is None, tail_of_logs(checkout)
        assert time.monotonic() < end
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = journal_of(shared)
    assert kept <= len(left) < 13 and not (checkout.path / QUESTIONS).exists()
    checkout.snakemake("--unlock")
    run(checkout, QUESTIONS)
    lines = read_json_lines(checkout.path / QUESTIONS)
    assert lines[: len(left)] == left  # with their seconds
    said = [[line[name] for name in ("id", "answer", "tokens", "cut")] for line in undisturbed]
    assert [[line[name] for name in ("id", "answer", "tokens", "cut")] for line in lines] == said
    asked = read_json_lines(shared / "run/answers_before/prompts.jsonl")
    assert [one["id"] for one in asked] == [line["id"] for line in undisturbed[len(left) :]]
    assert not journal_of(shared)


def journal_of(place: Path) -> list[dict]:
    """The lines that are kept of answers in a directory, in their order."""
    found = [path.read_bytes() for path in place.glob(".answers_*.journal")]
    batches = [batch for content in found for batch in parsed(content)[1]]
    return [line for batch in batches for _, line in batch]


AGAIN = {"finetune_model": 1, "export_model": 1, "compare_answers": 1}
EDITS = {
    "npus_per_node": (2, AGAIN | {"answer_prompts": 1}),
    "environment": ({"A": "1"}, AGAIN | {"answer_prompts": 2}),
    "extra_arguments": (["--log-throughput"], AGAIN | {"answer_prompts": 1}),
    "converter": (
        "mm-convert", AGAIN | {"prepare_checkpoint": 1, "answer_prompts": 2},
    ),
    "inference": ("script", {"answer_prompts": 2, "compare_answers": 1}),
    "num_workers": (2, {}),
    "preprocessing_num_workers": (1, {}),
    "distributed_timeout_minutes": (9, {}),
    "master_port": (6001, {}),
    "cache": ("elsewhere", {}),
}  # fmt: skip


@pytest.mark.parametrize("key", EDITS)
def test_an_edit_of_the_machine_runs_what_depends_on_it(one, home, key):
    value, expected = EDITS[key]
    try:
        one.configure(settings(home, SHORT, **{key: value}))
        assert one.planned() == expected
    finally:
        one.configure(settings(home, SHORT))
    assert one.planned() == {}


def test_what_one_engine_wrote_the_other_answers_from(one, tmp_path):
    """The hf engine on mindspeed's trained model: the same answers, but for a token of bf16's."""
    checkout = Checkout(tmp_path / "other")
    shutil.copytree(one.path, checkout.path, symlinks=True)
    for path in checkout.path.glob("results/*/answers_*.jsonl"):
        path.unlink()
    config = merged(settings(Path(HOME), SHORT), {"engine": "hf", "hf": {"precision": "bf16"}})
    checkout.configure(config)
    checkout.snakemake(
        "results/compare.csv", "--rerun-triggers", "mtime", "--allowed-rules", "answer_prompts",
        "compare_answers", "--force", "--forcerun", "compare_answers",
    )  # fmt: skip
    ours = [row["before"] for row in table(checkout, "results/compare.csv")]
    assert ours == [row["before"] for row in table(one, "results/compare.csv")]
