"""A base model, pictures and prompts: some with several pictures, in Chinese, or with a system text."""

import json
import random

import pytest
from mindtune.demo.base_model import write_base_model
from mindtune.demo.drawing import draw_scene
from mindtune.demo.scenes import conversation, scenes


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("serving") / "Qwen2-VL-demo"
    write_base_model(directory)
    return directory


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
