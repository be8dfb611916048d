"""Qwen3-VL in the hf engine: sizes, features that enter several layers, training, answers and export."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from mindtune.checkpoint import hf_to_mm, resplit
from mindtune.checkpoint.layout import ParallelLayout
from mindtune.checkpoint.model_directory import model_problems, processor_problems
from mindtune.engines.chat import template_difference
from mindtune.engines.hf.answer import generated, padded
from mindtune.engines.hf.dataset import picture_inputs
from mindtune.engines.hf.features import Tower
from mindtune.engines.hf.levels import as_output
from mindtune.engines.hf.model import load_model
from mindtune.engines.hf.packing import packed_loss, picture_features
from mindtune.engines.hf.processing import IGNORE_INDEX, Processor
from mindtune.errors import UserError
from mindtune.models.mindspeed import framework_of
from mindtune.models.published import PUBLISHED
from mindtune.models.shape import model_shape, read_config
from mindtune.settings.sections import Settings
from mindtune.settings.typed import made_of
from test_families_trained import LOSS, family_of, packer_of, place_of
from test_finetune import place as finetune_place
from test_finetune import rows, train
from test_packing import picture, sample
from tiny_qwen3 import write_base

place_of_finetune = finetune_place  # a fixture


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return family_of(write_base(tmp_path_factory.mktemp("base") / "Qwen3-VL-tiny"))


@pytest.fixture(scope="module")
def models(family):
    return family.models


@pytest.fixture(scope="module")
def processor(family):
    return family.processor


@pytest.fixture(scope="module")
def base(family):
    return family.base


@pytest.fixture(scope="module")
def place(place_of_finetune, family, tmp_path_factory):
    return place_of(family, place_of_finetune, tmp_path_factory.mktemp("trained") / "place")


@pytest.mark.parametrize(
    ("section", "changes", "said"),
    [
        ("vision_config", {"deepstack_visual_indexes": [1, 2]},
         "config.json, vision_config: deepstack_visual_indexes is [1, 2]; 3 layers of the vision encoder, "
         "each below 24, are needed"),
        ("vision_config", {"deepstack_visual_indexes": [1, 2, 24]}, "[1, 2, 24]; 3 layers"),
        ("vision_config", {"out_hidden_size": 3584},
         "out_hidden_size is 3584, but hidden_size in text_config 2560; they have to be equal"),
        ("text_config", {"attention_bias": True}, "attention_bias is true"),
        ("vision_config", {"num_position_embeddings": 0}, "num_position_embeddings is 0"),
    ],
)  # fmt: skip
def test_sizes_of_no_such_model_are_refused(section, changes, said):
    config = PUBLISHED["Qwen3-VL-4B"]
    with pytest.raises(UserError) as caught:
        model_shape(config | {section: config[section] | changes})
    assert said in str(caught.value)


# What gives features that need no more of the tower.
PROJECTED = SimpleNamespace(merged=lambda features: features)


def test_every_level_of_the_features_matters_to_its_own_picture(models, processor):
    """Of two samples, what the first one's picture adds in any layer changes the first one's loss alone."""
    _, model = models
    one, two = (sample(processor, seed, [(140, 112)], 2) for seed in (1, 2))
    seen = {}
    model.model.visual.requires_grad_(False)
    for name, weights in (("first", [1.0, 0.0]), ("second", [0.0, 1.0])):
        part = packer_of(processor).packed([one, two], weights)
        with torch.no_grad():
            features = picture_features(model.model, part.pixel_values, part.grid_thw)
            assert features.shape == (2 * 16, 4 * 128)
            for level in range(4):
                changed = features.clone()
                changed[:16, level * 128 : (level + 1) * 128] += 1.0
                kept = replace(part, pixel_values=None, grid_thw=None, features=changed)
                seen[name, level] = packed_loss(model, kept, PROJECTED).item()
            kept = replace(part, pixel_values=None, grid_thw=None, features=features)
            seen[name] = packed_loss(model, kept, PROJECTED).item()
            assert seen[name] == packed_loss(model, part).item()
    for level in range(4):
        assert seen["first", level] != pytest.approx(seen["first"], rel=1e-4)
        assert seen["second", level] == pytest.approx(seen["second"], rel=LOSS)


def test_a_conversation_has_no_system_text_but_its_own(processor):
    """The loss is on the answers."""
    messages = [
        {"role": "user", "content": "<image>\nWhat is the color of the bus?"},
        {"role": "assistant", "content": "Red."},
    ]
    grids = [torch.tensor([1, 8, 10])]
    ids, labels = processor.encode_conversation(messages, grids, 1024)
    said = (
        "<|im_start|>user\n<|vision_start|>" + "<|image_pad|>" * 20 + "<|vision_end|>\nWhat is the color "
        "of the bus?<|im_end|>\n<|im_start|>assistant\nRed.<|im_end|>\n"
    )  # fmt: skip
    assert processor.tokenizer.decode(ids) == said
    learned = [token for token in labels if token != IGNORE_INDEX]
    assert processor.tokenizer.decode(learned) == "Red.<|im_end|>\n"
    own = [{"role": "system", "content": "Be brief."}, *messages]
    ids, labels = processor.encode_conversation(own, grids, 1024)
    assert processor.tokenizer.decode(ids) == f"<|im_start|>system\nBe brief.<|im_end|>\n{said}"
    asked = processor.encode_prompt("<image>\nWhat?", grids)
    assert processor.tokenizer.decode(asked).startswith("<|im_start|>user\n<|vision_start|>")


# What the chat template of Qwen3-VL says of a conversation without tools, videos or thinking.
OWN_TEMPLATE = (
    "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + "
    "'<|im_end|>\\n' }}{%- endif %}{%- for message in messages %}{%- if message.role != 'system' %}"
    "{{- '<|im_start|>' + message.role + '\\n' }}{%- if message.content is string %}"
    "{{- message.content }}{%- else %}{%- for part in message.content %}{%- if part.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{%- else %}{{- part.text }}{%- endif %}{%- endfor %}"
    "{%- endif %}{{- '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def test_a_template_without_a_system_text_is_the_familys(base, tmp_path):
    place = tmp_path / "model"
    shutil.copytree(base, place)
    (place / "chat_template.json").write_text(json.dumps({"chat_template": OWN_TEMPLATE}))
    assert template_difference(place) is None


def test_a_processor_with_other_patches_is_refused(base):
    """Where preprocessor_config.json says nothing, transformers' class has Qwen2-VL's 14 pixels."""
    processor = Processor(base)
    assert (processor.image_processor.patch_size, processor.merge_length) == (16, 4)
    found = {
        name: json.loads((base / name).read_text())
        for name in ("config.json", "preprocessor_config.json")
    }
    assert list(processor_problems(found, "the model", "hf")) == []
    del found["preprocessor_config.json"]["patch_size"]
    assert list(processor_problems(found, "the model", "hf")) == [
        "the model: patch_size is 14 in preprocessor_config.json, but patch_size is 16 in vision_config of "
        "config.json; they are of different models: download both again."
    ]


def test_the_layout_has_one_rank(base, tmp_path):
    said = (
        "Qwen3-VL is on one rank only, for MindSpeed-MM 2.0.0 doesn't know it; leave tensor parallel size 1 "
        "and all layers on one stage"
    )
    for wanted in ({"tp_size": 2}, {"llm_pp_layers": [1, 3], "vit_pp_layers": [4, 0]}):
        with pytest.raises(UserError) as caught:
            hf_to_mm(base, tmp_path / "cut", **wanted)
        assert str(caught.value) == said and not (tmp_path / "cut").exists()
    shape = model_shape(read_config(base))
    assert ParallelLayout.make(shape, llm_pp_layers=[4], vit_pp_layers=[4]).pp_size == 1
    hf_to_mm(base, tmp_path / "mm")
    with pytest.raises(UserError) as caught:  # without a config.json the names tell the family
        resplit(tmp_path / "mm", tmp_path / "cut", llm_pp_layers=[1, 3], vit_pp_layers=[4, 0])
    assert str(caught.value) == said and not (tmp_path / "cut").exists()


PARALLEL = {"tensor_model_parallel_size": 1, "llm_pp_layers": None, "vit_pp_layers": None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"engine": "mindspeed", "mindspeed": {"converter": "mm-convert"}},
         ["engine is mindspeed, but MindSpeed-MM 2.0.0 doesn't know Qwen3-VL; write `engine: hf`."]),
        ({"answer": {"engine": "mindspeed"}},
         ["answer.engine is mindspeed, but MindSpeed-MM 2.0.0 doesn't know Qwen3-VL; write `answer.engine: "
          "hf`, or vllm."]),
        ({"mindspeed": {"converter": "mm-convert"}},
         ["mindspeed.converter is mm-convert, but MindSpeed-MM 2.0.0 doesn't know Qwen3-VL; write "
          "`converter: mindtune`."]),
        ({"parallel": PARALLEL | {"tensor_model_parallel_size": 2}},
         ["parallel does not fit the model in {}/config.json: Qwen3-VL is on one rank only, for MindSpeed-MM 2.0.0 "
          "doesn't know it; leave tensor parallel size 1 and all layers on one stage."]),
    ],
)  # fmt: skip
def test_the_framework_is_refused_in_a_sentence(base, changes, said):
    settings = {"engine": "hf", "answer": {"engine": None}, "parallel": PARALLEL,
                "mindspeed": {"converter": "mindtune"}} | changes  # fmt: skip
    assert list(model_problems(base, made_of(Settings, settings))) == [
        line.format(base) for line in said
    ]
    with pytest.raises(UserError, match=r"MindSpeed-MM 2\.0\.0 doesn't know Qwen3-VL"):
        framework_of("qwen3_vl")


@torch.inference_mode()
def test_answers_are_what_the_whole_model_says_next(base, processor):
    """Two prompts about pictures and one about none: with features that are kept, with pixels, and by passes of
    the whole text without a cache, in which every level of the features is seen anew."""
    model = load_model(base, torch.float32).eval()
    shown = [[picture(processor, 1, 140, 112)], [], [picture(processor, n, 60, 90) for n in (2, 3)]]
    questions = ["<image>\nWhere?", "Why?", "<image><image>\nWhat differs?"]
    rows = [
        processor.encode_prompt(question, [one.grid_thw[0] for one in pictures])
        for question, pictures in zip(questions, shown, strict=True)
    ]
    ids, mask = padded(rows, processor.pad_id)
    every = [one for pictures in shown for one in pictures]
    inputs = {"input_ids": ids, "attention_mask": mask}
    pixels = generated(model, processor, inputs | picture_inputs(ids, every, processor), 6)
    grids = torch.cat([one.grid_thw for one in every])
    kept = {"image_grid_thw": grids, **picture_inputs(ids, [], processor)}
    tower = Tower(model.model, packed=False)
    features = [tower(one.pixel_values, one.grid_thw) for one in every]
    assert {one.shape[1] for one in features} == {4 * 128}
    given = {"mm_encoder_outputs": {"image": as_output(model, features)}}
    assert torch.equal(generated(model, processor, inputs | kept, 6, **given), pixels)
    for row, pictures, said in zip(rows, shown, pixels.tolist(), strict=True):
        for token in said:
            own = torch.tensor([row])
            logits = model(input_ids=own, **picture_inputs(own, pictures, processor)).logits
            assert logits[0, -1].argmax() == token
            if token in (processor.end_id, processor.pad_id):
                break
            row = [*row, token]


@pytest.mark.parametrize("packed", [True, False])
def test_kept_features_are_all_that_the_tower_gives(place, tmp_path, packed):
    """With all of it frozen each picture is computed once, alone, and read again after that: all levels."""
    machine = {"tokens_per_pass": 300} if packed else {}
    kept = tmp_path / "features" / "code"
    first, again = (
        train(place, tmp_path / name, machine=machine, features=kept) for name in ("a", "b")
    )
    files = [path for path in kept.rglob("*") if path.is_file()]
    assert files
    for path in files:
        header = json.loads(path.read_bytes().partition(b"\n")[0])
        assert header["shape"][1] == 4 * 128
    off = train(place, tmp_path / "c", machine=machine | {"feature_cache": "off"})
    assert first == again
    if packed:
        assert first == off
    losses = [[float(row["loss"]) for row in rows(tmp_path / name)] for name in ("a", "c")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_nothing_is_kept_where_a_projector_is_trained(place, tmp_path):
    kept = tmp_path / "features" / "code"
    train(place, tmp_path / "a", features=kept, freeze_vision_projector=False)
    assert not kept.exists()
