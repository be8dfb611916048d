"""What the stand-in lets one rehearse: parallel training, mm-convert and inference, all the real ones."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from mindtune.checkpoint import ParallelLayout, hf_to_mm, mm_to_hf
from mindtune.engines.mindspeed import rendering
from mindtune.files import write_json
from mindtune.models.shape import model_shape
from place import ONE_RANK, TUTORIAL
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.mindspeed

FEW = TUTORIAL | {"train_iters": 4, "global_batch_size": 4, "lr": 1e-3}
TOKENS = 8
TWO_RANKS = ONE_RANK | {"tp_size": 2}
STAGES = {"tp_size": 1, "llm_pp_layers": [[1, 3]], "vit_pp_layers": [[4, 0]]}
APART = {"tp_size": 1, "llm_pp_layers": [[0, 4]], "vit_pp_layers": [[4, 0]]}
# Layout, context and data parallel size: what the framework can do with this model on up to four.
WAYS = {
    "tp2": (TWO_RANKS, 1, 1),
    "pp2": (STAGES, 1, 1),
    "cp2": (ONE_RANK, 2, 1),
    "tp2 pp2": (STAGES | {"tp_size": 2}, 1, 1),
    "tp2 dp2": (TWO_RANKS, 1, 2),
    "tp2 cp2": (TWO_RANKS, 2, 1),
    "pp2 dp2": (STAGES, 1, 2),
    "cp2 dp2": (ONE_RANK, 2, 2),
}
# In float32 nothing is left of the differences but the digits that the log has.
EXACT = ("cp2", "tp2 pp2")


@pytest.fixture(scope="module")
def trained(mindspeed, place, tmp_path_factory):
    """A short training on one device: its directory, and its iterations."""
    out = tmp_path_factory.mktemp("trained")
    return out, place.train_by_framework(mindspeed, out, FEW)


def train(mindspeed, place, out, way, **more):
    """A short training; its iterations. way: a layout, a context and a data parallel size."""
    layout, context, replicas = way
    mm = out / "mm"
    hf_to_mm(place.base, mm, **layout)
    return place.train_by_framework(
        mindspeed, out, FEW | more.pop("train", {}), layout=layout, mm=mm, context=context,
        replicas=replicas, **more,
    )  # fmt: skip


def compare(ones, others, tolerance):
    assert len(ones) == len(others) == FEW["train_iters"]
    for one, other in zip(ones, others, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=tolerance), one.iteration
    assert ones[-1].loss < 0.7 * ones[0].loss  # of a training that leads somewhere


@pytest.mark.parametrize("name", WAYS)
def test_several_processes_train_like_one(mindspeed, place, trained, tmp_path, name):
    """Collectives over gloo: the losses are those of one device, but for another order of sums."""
    compare(trained[1], train(mindspeed, place, tmp_path, WAYS[name]), 0.01)


@pytest.fixture(scope="module")
def trained_in_fp32(mindspeed, place, tmp_path_factory):
    """The same on one device without rounding, and with all of the model trained."""
    out = tmp_path_factory.mktemp("fp32")
    return train(mindspeed, place, out, (ONE_RANK, 1, 1), train=ALL, precision="fp32")


ALL = {"freeze_vision_encoder": False, "freeze_vision_projector": False}


@pytest.mark.parametrize("name", EXACT)
def test_without_rounding_nothing_is_left_between_them(
    mindspeed, place, trained_in_fp32, tmp_path, name
):
    lines = train(mindspeed, place, tmp_path, WAYS[name], train=ALL, precision="fp32")
    compare(trained_in_fp32, lines, 1e-5)


def test_a_sequence_is_cut_where_all_layers_are(mindspeed, place, tmp_path):
    """What `ParallelLayout.context_problems` refuses, the framework can't do."""
    with pytest.raises(RuntimeError, match="'NoneType' object has no attribute 'shape'"):
        train(mindspeed, place, tmp_path, (STAGES, 2, 1))


def test_a_stage_of_frozen_layers_ends_in_an_error_of_the_framework(mindspeed, place, tmp_path):
    """Hence `ParallelLayout.idle_stages`."""
    with pytest.raises(RuntimeError, match="optimizer got an empty parameter list"):
        train(mindspeed, place, tmp_path, (APART, 1, 1))


def store_output(base, out):
    """The base with an equal lm_head.weight beside its embedding, to which it stays tied."""
    shutil.copytree(base, out)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    file = index["weight_map"]["model.embed_tokens.weight"]
    tensors = load_file(out / file)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, out / file, metadata={"format": "pt"})
    index["weight_map"]["lm_head.weight"] = file
    (out / "model.safetensors.index.json").write_text(json.dumps(index))


def test_a_stored_output_layer_of_a_tied_model_is_left_out_for_a_reason(mindspeed, place, tmp_path):
    """mm-convert keeps it on one stage, and the framework can't load what it then wrote."""
    store_output(place.base, tmp_path / "hf")
    options = {
        "mm_dir": tmp_path / "theirs", "hf_config.hf_dir": tmp_path / "hf",
        "parallel_config.llm_pp_layers": [[4]], "parallel_config.vit_pp_layers": [[4]],
        "parallel_config.tp_size": 1,
    }  # fmt: skip
    call = ["-m", "checkpoint.convert_cli", "Qwen2VLConverter", "hf_to_mm"]
    mindspeed.run([*call, *(f"--cfg.{k}={v}" for k, v in options.items())], mindspeed.home)
    (tmp_path / "theirs").chmod(0o755)
    few = FEW | {"train_iters": 1}
    with pytest.raises(RuntimeError, match=r"text_decoder\.output_layer\.weight"):
        place.train_by_framework(mindspeed, tmp_path / "one", few, mm=tmp_path / "theirs")
    hf_to_mm(tmp_path / "hf", tmp_path / "ours", **ONE_RANK)
    lines = place.train_by_framework(mindspeed, tmp_path / "two", few, mm=tmp_path / "ours")
    assert len(lines) == 1


def test_mm_convert_reads_what_was_trained(mindspeed, place, trained, tmp_path):
    """The real mm_to_hf with its real adaptor, on a checkpoint with the framework's pickled arguments."""
    save_dir = trained[0] / "save_dir"
    options = {
        "save_hf_dir": tmp_path / "theirs",
        "mm_dir": save_dir,
        "hf_config.hf_dir": place.base,
        "parallel_config.llm_pp_layers": [4],
        "parallel_config.vit_pp_layers": [4],
        "parallel_config.tp_size": 1,
    }
    call = ["-m", "checkpoint.convert_cli", "Qwen2VLConverter", "mm_to_hf"]
    mindspeed.run([*call, *(f"--cfg.{k}={v}" for k, v in options.items())], mindspeed.home)
    (tmp_path / "theirs").chmod(0o755)
    mm_to_hf(
        save_dir, place.base, tmp_path / "ours",
        tp_size=1, llm_pp_layers=[[4]], vit_pp_layers=[[4]],
    )  # fmt: skip
    files = sorted(path.name for path in (tmp_path / "ours").glob("*.safetensors"))
    assert len(files) == 2
    base = load_file(place.base / files[0])
    moved = 0
    for file in files:
        ours, theirs = load_file(tmp_path / "ours" / file), load_file(tmp_path / "theirs" / file)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
        moved += sum(not torch.equal(ours[name], base[name]) for name in ours.keys() & base.keys())
    assert moved


def test_the_pipeline_class_answers_like_transformers(mindspeed, place, tmp_path):
    """Greedy answers of the base model by the framework's own inference, and by transformers'."""
    questions, here = tmp_path / "questions.json", Path(__file__).parent
    asked = [record for record in json.loads(place.train.read_text()) if record["images"]][:3]
    questions.write_text(
        json.dumps(
            [
                [
                    record["messages"][0]["content"].replace("<image>", "").strip(),
                    str(place.images / record["images"][0]),
                ]
                for record in asked
            ]
        )
    )
    arguments = place.command_line(mindspeed, tmp_path, FEW)
    shipped = mindspeed.example("inference_qwen2vl_2b.json")
    whole = ParallelLayout.make(model_shape(place.config), **ONE_RANK)
    end, text_end = (place.config[name] for name in ("eos_token_id", "bos_token_id"))
    config = rendering.inference_file(
        shipped, place.config, whole, hf_dir=place.base, end=end, text_end=text_end,
        max_new_tokens=TOKENS,
    )  # fmt: skip
    write_json(tmp_path / "model.json", config)
    mindspeed.torchrun(
        here / "infer.py", [questions, tmp_path / "theirs.json", *arguments], tmp_path
    )
    mindspeed.run(
        [here / "transformers_answers.py", questions, tmp_path / "plain.json", place.base, TOKENS],
        tmp_path,
        standin=False,
    )
    theirs, plain = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("theirs", "plain"))
    assert theirs == plain
    assert len(set(theirs)) == 3  # they depend on the picture
