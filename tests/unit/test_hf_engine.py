"""The hf engine's parts on the demo's real base model."""

import inspect
import json

import pytest
import torch
from mindtune.checkpoint import hf_to_mm, load_hf_tensors
from mindtune.checkpoint.model_shape import read_config
from mindtune.demo.base_model import ASSETS, write_base_model
from mindtune.demo.drawing import draw_scene
from mindtune.demo.scenes import Scene
from mindtune.engines import ENGINES, STAGES, jobs, stage
from mindtune.engines.hf.checkpoints import published_tensors
from mindtune.engines.hf.dataset import Collator, Conversations
from mindtune.engines.hf.finetune import freeze
from mindtune.engines.hf.model import build_model, load_model
from mindtune.engines.hf.processing import IGNORE_INDEX, Processor
from mindtune.errors import UserError
from PIL import Image


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("base") / "Qwen2-VL-demo"
    write_base_model(directory)
    return directory


@pytest.fixture(scope="module")
def processor(base):
    return Processor(base)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    import random

    directory = tmp_path_factory.mktemp("images")
    scene = Scene("bus", "red", "drink", "blue", "middle", 2)
    draw_scene(scene, random.Random(1))[0].save(directory / "a.jpg", quality=90)
    return directory


MESSAGES = [
    {"role": "user", "content": "<image>\nWhat is the color of the bus?"},
    {"role": "assistant", "content": "The color of the bus is red."},
    {"role": "user", "content": "Where is the bus in the image?"},
    {"role": "assistant", "content": "The bus is in the middle of the image."},
]


def test_the_base_has_the_files_of_a_published_model(base):
    assert sorted(path.name for path in base.iterdir()) == [
        "chat_template.json", "config.json", "generation_config.json", "merges.txt",
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
        "model.safetensors.index.json", "preprocessor_config.json", "tokenizer.json",
        "tokenizer_config.json", "vocab.json",
    ]  # fmt: skip
    assert (base / "config.json").read_bytes() == (ASSETS / "config.json").read_bytes()
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    index = json.loads((base / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] < size < 6 * 2**20


def test_every_engine_has_every_stage_with_the_same_signature():
    for engine in ENGINES:
        for name in STAGES:
            parameters = inspect.signature(stage(engine, name)).parameters
            wanted = getattr(jobs, f"{name.capitalize()}Job")
            assert [p.annotation for p in parameters.values()] == [wanted], (engine, name)


def test_a_conversation_is_encoded_as_mindspeed_mm_does(processor):
    grid = torch.tensor([1, 8, 10])
    ids, labels = processor.encode_conversation(MESSAGES, [grid], 1024)
    text = processor.tokenizer.decode(ids)
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|>" + "<|image_pad|>" * 20 + "<|vision_end|>\nWhat is the color of the bus?"
        "<|im_end|>\n<|im_start|>assistant\nThe color of the bus is red.<|im_end|>\n"
        "<|im_start|>user\nWhere is the bus in the image?<|im_end|>\n<|im_start|>assistant\n"
        "The bus is in the middle of the image.<|im_end|>\n"
    )
    learned = [token for token in labels if token != IGNORE_INDEX]
    assert processor.tokenizer.decode(learned) == (
        "The color of the bus is red.<|im_end|>\nThe bus is in the middle of the image.<|im_end|>\n"
    )
    assert all(label in (IGNORE_INDEX, token) for label, token in zip(labels, ids, strict=True))


def test_a_long_conversation_is_cut_turn_by_turn(processor):
    whole, _ = processor.encode_conversation(MESSAGES, [torch.tensor([1, 8, 10])], 1024)
    cut, labels = processor.encode_conversation(MESSAGES, [torch.tensor([1, 8, 10])], 80)
    assert len(cut) == len(labels) == 80 < len(whole)
    assert cut[:60] == whole[:60]


def test_a_picture_in_an_answer_is_expanded_too(processor):
    messages = [
        {"role": "user", "content": "Two: <image>"},
        {"role": "assistant", "content": "<image>"},
    ]
    grids = [torch.tensor([1, 8, 10]), torch.tensor([1, 2, 2])]
    ids, _ = processor.encode_conversation(messages, grids, 1024)
    assert ids.count(processor.image_token_id) == 20 + 1


def test_a_prompt_is_what_training_showed(processor):
    grid = torch.tensor([1, 8, 10])
    ids, _ = processor.encode_conversation(MESSAGES[:2], [grid], 1024)
    prompt = processor.encode_prompt(MESSAGES[0]["content"], [grid])
    assert ids[: len(prompt)] == prompt


def test_a_picture_becomes_twenty_tokens_and_a_large_one_is_shrunk(processor, images, tmp_path):
    image = processor.open_image(images / "a.jpg")
    picture = processor.picture(image)
    assert image.size == (400, 320)
    assert picture.grid_thw.tolist() == [[1, 8, 10]]
    assert picture.pixel_values.shape == (80, 3 * 2 * 14 * 14)
    image.resize((1600, 1280)).save(tmp_path / "large.png")
    assert processor.open_image(tmp_path / "large.png").size == (572, 457)


@pytest.mark.parametrize(
    ("size", "read"), [((6000, 28), (5040, 28)), ((28, 6000), (28, 5040)), ((5600, 28), (5600, 28))]
)
def test_a_picture_too_long_for_the_model_is_pressed(processor, tmp_path, size, read):
    Image.new("RGB", size).save(tmp_path / "long.png")
    assert processor.open_image(tmp_path / "long.png").size == read


def test_a_batch_is_padded_to_eights(processor, images):
    records = [
        {"images": ["a.jpg"], "messages": MESSAGES},
        {"images": [], "messages": MESSAGES[2:]},
    ]
    data = Conversations(records, images, processor, 1024)
    batch = Collator(processor)([data[0], data[1]])
    assert batch["input_ids"].shape[1] % 8 == 0
    assert batch["image_grid_thw"].tolist() == [[1, 8, 10]]
    assert batch["mm_token_type_ids"].sum(1).tolist() == [20, 0]
    used = batch["attention_mask"].sum(1).tolist()
    assert used == [len(data[0]["input_ids"]), len(data[1]["input_ids"])]
    assert (batch["labels"][1, used[1] :] == IGNORE_INDEX).all()


def test_a_picture_that_is_gone_or_broken_is_named(processor, tmp_path):
    data = Conversations([{"images": ["x.jpg"], "messages": MESSAGES}], tmp_path, processor, 1024)
    with pytest.raises(UserError, match=r"x.jpg can't be used: the image is missing; put it back"):
        data[0]
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8\xff\xe0broken")
    with pytest.raises(UserError, match=r"x.jpg can't be used: the picture can't be decoded"):
        data[0]


def test_a_directory_without_tokenizer_is_said(tmp_path):
    with pytest.raises(UserError, match="no usable tokenizer or image processor"):
        Processor(tmp_path)


def test_the_model_from_an_mm_checkpoint_is_the_model_from_the_download(base, tmp_path):
    hf_to_mm(base, tmp_path / "mm")
    tensors = load_hf_tensors(tmp_path / "mm", read_config(base))
    built = published_tensors(build_model(base, tensors, torch.float32))
    loaded = published_tensors(load_model(base, torch.float32))
    assert set(built) == set(loaded)
    assert all(torch.equal(built[name], loaded[name]) for name in built)


def test_tensors_of_another_model_are_refused(base):
    tensors = published_tensors(load_model(base, torch.float32))
    missing = {name: tensor for name, tensor in tensors.items() if name != "model.norm.weight"}
    with pytest.raises(UserError, match="1 tensors are missing or unknown"):
        build_model(base, missing, torch.float32)
    tensors["model.norm.weight"] = torch.zeros(7)
    with pytest.raises(UserError, match="of different models"):
        build_model(base, tensors, torch.float32)


@pytest.mark.parametrize("encoder", [True, False])
@pytest.mark.parametrize("projector", [True, False])
def test_freezing(base, encoder, projector):
    model = load_model(base, torch.float32)
    freeze(model, {"freeze_vision_encoder": encoder, "freeze_vision_projector": projector})
    for name, parameter in model.named_parameters():
        if ".merger." in name:
            assert parameter.requires_grad != projector
        elif ".visual." in name:
            assert parameter.requires_grad != encoder
        else:
            assert parameter.requires_grad


def test_pretraining_the_base_is_deterministic(tmp_path):
    from mindtune.demo.pretraining import Settings, pretrain

    small = Settings(pictures=64, vision_steps=2, steps=2, batch=4, vision_batch=4, threads=1)
    for name in ("first", "second"):
        pretrain(tmp_path / name, small, tmp_path / "work", log=lambda line: None)
    for file in ("weights.safetensors", "tokenizer.json", "config.json", "pretraining.json"):
        first = (tmp_path / "first" / file).read_bytes()
        assert first == (tmp_path / "second" / file).read_bytes()
