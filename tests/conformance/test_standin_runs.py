"""What the stand-in lets one rehearse: parallel training, mm-convert and inference, all the real ones."""

import json
from pathlib import Path

import pytest
import torch
from mindtune.checkpoint import ParallelLayout, hf_to_mm, mm_to_hf
from mindtune.checkpoint.model_shape import model_shape
from mindtune.engines import chat
from mindtune.engines.mindspeed import rendering
from mindtune.engines.tokenizer import token_ids
from mindtune.files import write_json
from place import ONE_RANK, TUTORIAL
from safetensors.torch import load_file

pytestmark = pytest.mark.mindspeed

FEW = TUTORIAL | {"train_iters": 4, "global_batch_size": 4, "lr": 1e-3}
TOKENS = 8
LAYOUTS = {
    "two tensor ranks": {"tp_size": 2, "llm_pp_layers": [[4]], "vit_pp_layers": [[4]]},
    "two pipeline stages": {"tp_size": 1, "llm_pp_layers": [[1, 3]], "vit_pp_layers": [[4, 0]]},
}


@pytest.fixture(scope="module")
def trained(mindspeed, place, tmp_path_factory):
    """A short training on one device: its directory, and its iterations."""
    out = tmp_path_factory.mktemp("trained")
    return out, place.train_by_framework(mindspeed, out, FEW)


@pytest.mark.parametrize("name", LAYOUTS)
def test_two_processes_train_like_one(mindspeed, place, trained, tmp_path, name):
    """Collectives over gloo: the losses are those of one device, but for another order of sums."""
    hf_to_mm(place.base, tmp_path / "mm", **LAYOUTS[name])
    lines = place.train_by_framework(
        mindspeed, tmp_path, FEW, layout=LAYOUTS[name], mm=tmp_path / "mm"
    )
    for one, other in zip(trained[1], lines, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=0.01), one.iteration


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
    end, text_end = token_ids(place.base, chat.TURN_END, chat.TEXT_END)
    config = rendering.inference_file(
        shipped,
        place.config,
        whole,
        hf_dir=place.base,
        end=end,
        text_end=text_end,
        max_new_tokens=TOKENS,
    )
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
