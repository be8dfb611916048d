"""The hf engine's parts on the demo's real base model."""

import dataclasses
import inspect
import json
import random
import shutil

import pytest
import torch
from mindtune.checkpoint import hf_to_mm, load_hf_tensors
from mindtune.demo.base_model import ASSETS
from mindtune.demo.drawing import draw_scene
from mindtune.demo.scenes import Scene
from mindtune.engines import ENGINES, stage, training_check
from mindtune.engines import requests as jobs
from mindtune.engines.hf.checkpoints import published_tensors
from mindtune.engines.hf.dataset import Collator, Conversations, picture_inputs
from mindtune.engines.hf.finetune import freeze
from mindtune.engines.hf.model import build_model, load_model
from mindtune.engines.hf.processing import IGNORE_INDEX, Processor
from mindtune.errors import UserError
from mindtune.files import read_json_lines
from mindtune.models.shape import read_config
from mindtune.settings.typed import typed
from PIL import Image


@pytest.fixture(scope="module")
def images(tmp_path_factory):
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


def test_every_engine_has_the_roles_that_it_declares():
    for engine, declared in ENGINES.items():
        for name in declared.keys:
            parameters = inspect.signature(stage(engine, name)).parameters
            asked = [str(p.annotation).partition("[")[0] for p in parameters.values()]
            assert asked == [f"{name.capitalize()}Job"], (engine, name)


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
    frozen = {"freeze_vision_encoder": encoder, "freeze_vision_projector": projector}
    freeze(model, typed("train", frozen))
    for name, parameter in model.named_parameters():
        if ".merger." in name:
            assert parameter.requires_grad != projector
        elif ".visual." in name:
            assert parameter.requires_grad != encoder
        else:
            assert parameter.requires_grad


def asked(place, base, prompts):
    """The hf engine's answers to prompts about the pictures in a place."""
    write_lines(place / "prompts.jsonl", prompts)
    job = jobs.AnswerJob.of(
        "hf",
        prompts=place / "prompts.jsonl", images=place, model_dir=base, hf_dir=base,
        answers=place / "answers.jsonl", answer={"max_new_tokens": 8, "batch_size": 4},
        processor={"image_resolution": 512 * 512}, parallel={},
        machine={"device": "cpu", "precision": "fp32", "threads": 1},
    )  # fmt: skip
    stage("hf", "answer")(job)
    return read_json_lines(job.answers)


def write_lines(path, values):
    lines = [json.dumps(value, ensure_ascii=False) + "\n" for value in values]
    path.write_text("".join(lines), encoding="utf-8")


QUESTION = "What is the color of the bus?"
TWO = {"id": "2", "images": ["a.jpg", "b.jpg"], "prompt": f"<image>\n<image>\n{QUESTION}"}


@pytest.fixture
def pictures(tmp_path):
    for name, color in (("a.jpg", "red"), ("b.jpg", "blue")):
        scene = Scene("bus", color, "drink", "white", "middle", 2)
        draw_scene(scene, random.Random(1))[0].save(tmp_path / name, quality=90)
    return tmp_path


def likeliest(model, processor, names, place, text):
    """The greedy answer of a model, token by token, with nothing of transformers' generation."""
    shown = [processor.picture(processor.open_image(place / name)) for name in names]
    ids = processor.encode_prompt(text, [picture.grid_thw[0] for picture in shown])
    asked = len(ids)
    while len(ids) < asked + 8:
        given = torch.tensor([ids])
        with torch.inference_mode():
            logits = model(input_ids=given, **picture_inputs(given, shown, processor)).logits
        ids.append(int(logits[0, -1].argmax()))
        if ids[-1] in (processor.end_id, processor.pad_id):
            return processor.decode_answer(ids[asked:-1])
    return processor.decode_answer(ids[asked:])


def test_a_question_about_several_pictures_is_asked_with_all_of_them(base, processor, pictures):
    one = {"id": "1", "image": "a.jpg", "prompt": QUESTION}
    end = {"id": "3", "images": ["b.jpg"], "prompt": f"{QUESTION}\u2028<image>"}
    answers = asked(pictures, base, [one, TWO, end])
    model = load_model(base, torch.float32).eval()
    texts = (
        (["a.jpg"], f"<image>\n{QUESTION}"),
        (TWO["images"], TWO["prompt"]),
        (["b.jpg"], end["prompt"]),
    )
    for line, prompt, (names, text) in zip(answers, (one, TWO, end), texts, strict=True):
        assert line["answer"] == likeliest(model, processor, names, pictures, text)
        assert {**line, **prompt} == line and list(line)[3:] == [
            "answer",
            "tokens",
            "cut",
            "seconds",
        ]
    ids = processor.encode_prompt(TWO["prompt"], [torch.tensor([1, 8, 10])] * 2)
    assert ids.count(processor.image_token_id) == 40


def test_answers_are_greedy_whatever_the_model_says(base, pictures, tmp_path):
    prompts = [{"id": "1", "image": "a.jpg", "prompt": QUESTION}, TWO]
    plain = asked(pictures, base, prompts)
    other = tmp_path / "other"
    shutil.copytree(base, other)
    strange = {
        "repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "num_return_sequences": 2,
        "num_beams": 4, "do_sample": True, "temperature": 9.0, "eos_token_id": 3, "min_length": 100,
        "suppress_tokens": list(range(200)), "begin_suppress_tokens": [1],
    }  # fmt: skip
    for content in (json.dumps(strange), "no JSON", "[]"):
        (other / "generation_config.json").write_text(content)
        again = asked(pictures, other, prompts)
        assert [line["answer"] for line in again] == [line["answer"] for line in plain]
        assert [line["tokens"] for line in again] == [line["tokens"] for line in plain]


def test_a_model_directory_as_transformers_5_saves_it(base, pictures, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(base, other)
    settings = json.loads((other / "preprocessor_config.json").read_text())
    (other / "preprocessor_config.json").unlink()
    (other / "chat_template.json").rename(other / "chat_template.was")
    (other / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    found, wanted = (asked(pictures, place, [TWO])[0]["answer"] for place in (other, base))
    assert found == wanted


def test_answers_keep_the_marks_of_boxes_and_no_other_special_token(processor):
    text = "<|object_ref_start|>the bus<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>"
    ids = processor.encode(f"<|vision_start|>{text}<|image_pad|> ok<|im_start|>")
    assert processor.decode_answer(ids) == f"{text} ok"


def test_training_stops_before_it_begins_when_a_picture_would_be_cut(base, pictures):
    messages = [
        {"role": "user", "content": "<image> <image> <image> <image>\nWhat differs?"},
        {"role": "assistant", "content": "The colour."},
    ]
    record = {"images": ["a.jpg", "b.jpg"] * 2, "messages": messages}
    (pictures / "train.json").write_text(json.dumps([record] * 2))
    (pictures / "held_out.json").write_text("[]")
    train = {"train_iters": 1, "micro_batch_size": 1, "global_batch_size": 1, "seq_length": 64,
             "seed": 1, "eval_iters": 0, "save_interval": 1, "save_optim": False,
             "freeze_vision_encoder": True, "freeze_vision_projector": True}  # fmt: skip
    job = jobs.FinetuneJob.of(
        "hf",
        train_data=pictures / "train.json", held_out_data=pictures / "held_out.json",
        images=pictures, hf_dir=base, mm_dir=pictures / "mm", save_dir=pictures / "save",
        train=train, processor={"image_resolution": 512 * 512}, parallel={},
        machine={"device": "cpu", "precision": "fp32", "threads": 1},
    )  # fmt: skip
    with pytest.raises(UserError, match=r"record 0 of .*train.json .*seq_length 64 would cut"):
        training_check("hf")(job, 0)
    (pictures / "held_out.json").write_text(json.dumps([record]))
    (pictures / "train.json").write_text(json.dumps([{"images": [], "messages": messages[1:] * 2}]))
    training_check("hf")(job, 0)  # nothing held out is evaluated
    other = dataclasses.replace(job, train=typed("train", train | {"eval_iters": 1}))
    with pytest.raises(UserError, match=r"record 0 of .*held_out.json .*seq_length 64 would cut"):
        training_check("hf")(other, 0)


def test_pretraining_the_base_is_deterministic(tmp_path):
    from mindtune.demo.pretraining import Settings, pretrain

    small = Settings(pictures=64, vision_steps=2, steps=2, batch=4, vision_batch=4, threads=1)
    for name in ("first", "second"):
        pretrain(tmp_path / name, small, tmp_path / "work", log=lambda line: None)
    for file in ("weights.safetensors", "tokenizer.json", "config.json", "pretraining.json"):
        first = (tmp_path / "first" / file).read_bytes()
        assert first == (tmp_path / "second" / file).read_bytes()
