"""The main job in miniature: every rule for real, and what it leaves."""

import json
import subprocess

import pandas as pd
import torch
from transformers import Qwen2VLForConditionalGeneration
from workflow.conftest import SMALL, Checkout

TRAIN = SMALL["train"]


def lines(checkout, name):
    return [json.loads(line) for line in checkout.read(name).decode().splitlines()]


def test_compare_csv_holds_all_experiments_and_prompts(finished):
    table = pd.read_csv(finished.path / "results/compare.csv", keep_default_na=False)
    assert list(table.columns) == [
        "experiment", "id", "split", "family", "image", "image_in_training", "prompt",
        "reference", "before", "after", "exact_before", "exact_after", "box_before", "box_after",
        "changed",
    ]  # fmt: skip
    assert list(table["experiment"]) == ["baseline"] * 8 + ["hot"] * 8
    first = table.iloc[0]
    assert first["prompt"] == "What feature can be seen on the back of the bus?"
    assert first["image"] == "000000033471.jpg" and first["split"] == "named"
    assert first["reference"] == (
        "On the back of the bus, there is a large advertisement for a drink."
    )
    assert set(table["split"][1:8]) == {"held_out"}
    assert not table[table["split"] == "held_out"]["image_in_training"].any()
    assert list(table["before"][:8]) == list(table["before"][8:])


def test_the_base_answers_with_boxes(finished):
    answers = lines(finished, "results/shared/answers_before.jsonl")
    assert len(answers) == 8
    assert set(answers[0]) == {"id", "image", "prompt", "answer", "tokens", "cut", "seconds"}
    # Cut at eight tokens they have no box yet, but they begin as grounding answers do.
    assert answers[0]["answer"].startswith("<|object_ref_start|>the feature can be seen")
    assert answers[0]["cut"] and answers[0]["tokens"] == 8


def test_what_is_equal_for_all_experiments_is_computed_once(finished):
    results = finished.path / "results"
    assert sorted(p.name for p in (results / "shared").iterdir()) == [
        "answers_before.jsonl", "data", "features", "mm", "prompts.jsonl",
    ]  # fmt: skip
    for name in ("baseline", "hot"):
        assert not (results / name / "answers_before.jsonl").exists()
        assert (results / name / "answers_after.jsonl").is_file()


def test_loss_csv_has_a_line_per_iteration(finished):
    table = pd.read_csv(finished.path / "results/baseline/loss.csv")
    assert list(table["iteration"]) == [1, 2, 3, 4, 5, 6]
    assert list(table["consumed_samples"]) == [8, 16, 24, 32, 40, 48]
    assert (table["loss"] > 0).all() and (table["grad_norm"] > 0).all()
    assert list(table["held_out_loss"].notna()) == [False, False, True, False, False, True]
    assert table["lr"].iloc[-1] == 0


def test_save_dir_is_megatrons(finished):
    save_dir = finished.path / "results/baseline/save_dir"
    assert (save_dir / "latest_checkpointed_iteration.txt").read_text() == "6"
    assert sorted(p.name for p in save_dir.glob("iter_*")) == [
        "iter_0000002", "iter_0000004", "iter_0000006",
    ]  # fmt: skip
    file = save_dir / "iter_0000006/mp_rank_00/model_optim_rng.pt"
    content = torch.load(file, weights_only=True)
    assert content["iteration"] == 6 and content["checkpoint_version"] == 3.0
    base = torch.load(
        finished.path / "results/shared/mm/release/mp_rank_00/model_optim_rng.pt", weights_only=True
    )["model"]
    assert set(content["model"]) == set(base)
    for name, tensor in content["model"].items():
        same = torch.equal(tensor, base[name].float())
        # Norms and weights of the language model move, the frozen encoder doesn't.
        assert same == name.startswith("image_encoder."), name


def test_the_export_loads_and_is_the_checkpoint(finished):
    hf = finished.path / "results/baseline/hf"
    model, report = Qwen2VLForConditionalGeneration.from_pretrained(hf, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    trained = torch.load(
        finished.path / "results/baseline/save_dir/iter_0000006/mp_rank_00/model_optim_rng.pt",
        weights_only=True,
    )["model"]["text_decoder.embedding.word_embeddings.weight"]
    assert torch.equal(model.get_input_embeddings().weight, trained)
    names = {path.name for path in hf.iterdir()}
    assert {"config.json", "tokenizer.json", "preprocessor_config.json"} <= names


def test_experiments_differ_in_what_they_learned(finished):
    first, second = (finished.read(f"results/{name}/loss.csv") for name in ("baseline", "hot"))
    assert first != second


def test_a_second_run_elsewhere_gives_the_same_bytes(finished, tmp_path):
    """By processes of their own, as a user starts them; the others' scripts are forks, to be fast."""
    again = Checkout.make(tmp_path / "elsewhere with a space")
    subprocess.run(again.command("results/compare.csv"), cwd=again.path, check=True)
    for name in (
        "results/compare.csv",
        "results/summary.csv",
        "results/shared/data/train.json",
        "results/shared/mm/release/mp_rank_00/model_optim_rng.pt",
        "results/baseline/save_dir/iter_0000006/mp_rank_00/model_optim_rng.pt",
        "results/hot/hf/model-00001-of-00002.safetensors",
    ):
        assert again.read(name) == finished.read(name), name


def test_nothing_is_to_be_done_afterwards(finished):
    assert "Nothing to be done" in finished.snakemake("results/compare.csv")
