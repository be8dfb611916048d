"""A base model, pictures and prompts: some with several pictures, in Chinese, or with a system text."""

import json
import random

import pytest
import torch
from mindtune.checkpoint.adapters import export_adapter, save_adapters
from mindtune.demo.drawing import draw_scene
from mindtune.demo.scenes import conversation, scenes
from mindtune.models.adapters import adapted
from mindtune.models.shape import model_shape, read_config
from mindtune.models.tensors import hf_shapes
from mindtune.settings.typed import typed

WORDS = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj", "qkv"]


@pytest.fixture(scope="session")
def adapter(base, tmp_path_factory):
    """(rank, whether the vision model has some too) -> a drawn adapter of the base, exported."""
    made = {}

    def of(rank=16, seeing=False):
        if (rank, seeing) not in made:
            place = tmp_path_factory.mktemp("adapter")
            write_adapter(base, place / "save_dir", rank, seeing)
            export_adapter(place / "save_dir", base, place / "hf")
            made[rank, seeing] = place / "hf"
        return made[rank, seeing]

    return of


def write_adapter(base, save_dir, rank, seeing):
    """A checkpoint with adapters that change answers a lot, some of them of parts of a packed module."""
    config = read_config(base)
    shape = model_shape(config)
    shapes = hf_shapes(shape)
    lora = {"rank": rank, "alpha": 2 * rank, "dropout": 0.0, "target_modules": WORDS}
    frozen = {"freeze_vision_encoder": not seeing, "freeze_vision_projector": True}
    draw = torch.Generator().manual_seed(7)
    modules = {}
    for module in adapted(shape, typed("train", frozen | {"lora": lora})):
        (name,) = module.hf
        rows, columns = shapes[f"{name}.weight"]
        modules[name] = (
            torch.randn(rank, columns, generator=draw) / columns**0.5,
            torch.randn(rows, rank, generator=draw) * 0.04,
        )
    save_adapters(save_dir, 1, modules, config, lora=lora)


@pytest.fixture(scope="session")
def asked(tmp_path_factory):
    """A directory with prompts.jsonl and the pictures; one of them has to be shrunk."""
    place = tmp_path_factory.mktemp("asked")
    prompts = []
    for number, (image_id, scene) in enumerate(scenes(4, 5)):
        rng = random.Random(image_id)
        picture = draw_scene(scene, rng)[0]
        if number == 1:
            picture = picture.resize((1200, 700))
        picture.save(place / f"{number}.png")
        prompts += [
            {"image": f"{number}.png", "prompt": question}
            for question, _ in conversation(scene, rng)[:3]
        ]
    prompts += [
        {"images": ["0.png", "2.png"], "prompt": "<image>\n<image>\nWhich is red?"},
        {
            "images": ["1.png", "1.png", "3.png"],
            "prompt": "See <image> and <image>,\nthen <image>?",
        },
        {"image": "2.png", "prompt": "图中有什么？请用中文回答。"},
        {"image": "0.png", "prompt": "What is it?", "system": "Answer briefly."},
        {"images": [], "prompt": "What is a bus?"},
    ]
    (place / "prompts.jsonl").write_text(
        "".join(
            json.dumps({"id": str(number)} | prompt, ensure_ascii=False) + "\n"
            for number, prompt in enumerate(prompts)
        ),
        encoding="utf-8",
    )
    return place
