"""Qwen3-VL in the hf engine: sizes, features that enter several layers, training, answers and export."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from mindtune.checkpoint import hf_to_mm, load_hf_tensors, mm_to_hf, resplit
from mindtune.checkpoint.adapters import export_adapter
from mindtune.checkpoint.layout import ParallelLayout
from mindtune.checkpoint.model_directory import model_problems, processor_problems
from mindtune.engines.chat import template_difference
from mindtune.engines.hf.answer import generated, padded
from mindtune.engines.hf.checkpoints import published_tensors
from mindtune.engines.hf.dataset import Collator, picture_inputs
from mindtune.engines.hf.features import Tower
from mindtune.engines.hf.levels import as_output
from mindtune.engines.hf.model import build_model, load_model
from mindtune.engines.hf.packing import Packer, packed_loss, picture_features
from mindtune.engines.hf.processing import IGNORE_INDEX, Processor
from mindtune.engines.hf.segments import use_segments
from mindtune.errors import UserError
from mindtune.models.mindspeed import framework_of
from mindtune.models.published import PUBLISHED
from mindtune.models.shape import model_shape, read_config
from mindtune.models.tensors import hf_shapes, tensors_of
from mindtune.scale import count_parameters
from mindtune.settings.sections import Settings
from mindtune.settings.typed import made_of
from test_finetune import place as finetune_place
from test_finetune import rows, train
from test_packing import difference, gradients, one_by_one, picture, sample, together
from tiny_qwen3 import write_base
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

LOSS, GRADIENT = 1e-6, 1e-5
SEEING = {"freeze_vision_encoder": False, "freeze_vision_projector": False}
place_of_finetune = finetune_place  # a fixture


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "Qwen3-VL-tiny")


@pytest.fixture(scope="module")
def models(base):
    """One model as it was and one that attends by segments, with the same weights."""
    plain, packed = (load_model(base, torch.float32).train() for _ in range(2))
    use_segments(packed)
    return plain, packed


@pytest.mark.parametrize(
    ("name", "parameters"), [("Qwen3-VL-4B", 4_437_815_808), ("Qwen3-VL-8B", 8_767_123_696)]
)
def test_the_published_tensors_are_those_of_transformers(name, parameters):
    """Names, shapes and numbers, by transformers' own model, without memory for it."""
    config = PUBLISHED[name]
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**config))
    family = tensors_of(model.config)
    theirs = {family.published_name(n): tuple(t.shape) for n, t in model.state_dict().items()}
    if config["tie_word_embeddings"]:
        theirs.pop(family.output_hf)
    assert theirs == hf_shapes(model_shape(config))
    counted = count_parameters(model_shape(config))
    assert counted.all == sum(p.numel() for p in model.parameters()) == parameters
    visual = model.model.visual
    projectors = [*visual.merger.parameters(), *visual.deepstack_merger_list.parameters()]
    assert counted.projector == sum(p.numel() for p in projectors)


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


def packer_of(processor) -> Packer:
    return Packer(1, 4096, processor.image_token_id, processor.image_processor.merge_size)


@pytest.mark.parametrize(("tokens_per_pass", "frozen"), [(60, True), (4096, False)])
def test_packed_passes_give_the_same_loss_and_gradients(models, processor, tokens_per_pass, frozen):
    """Several pictures in a record, of several sizes, and text alone."""
    plain, packed = models
    for model in models:
        model.model.visual.requires_grad_(not frozen)
    drawn = [[(140, 112)], [], [(60, 60), (140, 56), (100, 112)], [(30, 28)], [], [(112, 112)] * 2]
    samples = [sample(processor, seed, sizes, 2) for seed, sizes in enumerate(drawn)]
    expected = one_by_one(plain, processor, samples, 2)
    found = together(packed, processor, samples, 2, tokens_per_pass)
    assert found == pytest.approx(expected, rel=LOSS)
    theirs, ours = gradients(plain), gradients(packed)
    assert difference(theirs, ours) < GRADIENT
    deep = [name for name in ours if "deepstack_merger_list" in name]
    assert len(deep) == (0 if frozen else 3 * 6)
    assert all(ours[name].norm() > 0 for name in deep)


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


def test_no_sample_and_no_picture_sees_another(models, processor):
    _, model = models
    first, second, third = (sample(processor, seed, [(140, 112)], 2) for seed in (1, 2, 3))
    packer = packer_of(processor)
    with torch.no_grad():
        alone = packed_loss(model, packer.packed([first], [1.0])).item()
        for other in (second, third):
            both = packer.packed([other, first], [0.0, 1.0])
            assert packed_loss(model, both).item() == pytest.approx(alone, rel=LOSS)
        # The test can fail: as one picture, or as one sample, the first does see the other.
        joined = replace(both, grid_thw=both.grid_thw[:1] * torch.tensor([1, 2, 1]))
        assert packed_loss(model, joined).item() != pytest.approx(alone, rel=1e-4)
        joined = replace(both, lengths=(sum(both.lengths),))
        assert packed_loss(model, joined).item() != pytest.approx(alone, rel=1e-4)


def test_positions_are_those_of_transformers(models, processor):
    plain, _ = models
    for seed, sizes in enumerate([[], [(56, 84)], [(84, 28), (28, 112), (56, 56)]]):
        one = sample(processor, seed, sizes, 2)
        ids = torch.tensor([one["input_ids"]])
        expected, _ = plain.model.get_rope_index(
            ids, (ids == processor.image_token_id).long(),
            torch.cat([p.grid_thw for p in one["pictures"]]) if sizes else None,
        )  # fmt: skip
        positions = packer_of(processor).positions(ids[0], one["pictures"])
        assert torch.equal(positions, expected[:, 0])


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


def test_the_model_from_an_mm_checkpoint_is_the_model_from_the_download(base, tmp_path):
    hf_to_mm(base, tmp_path / "mm")
    tensors = load_hf_tensors(tmp_path / "mm", read_config(base))
    built = published_tensors(build_model(base, tensors, torch.float32))
    loaded = published_tensors(load_model(base, torch.float32))
    assert set(built) == set(loaded)
    assert all(torch.equal(built[name], loaded[name]) for name in built)


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_that_went_there_and_back_says_the_same(processor, tmp_path, tied):
    """transformers' logits of text and a picture, to the last bit."""
    base = write_base(tmp_path / "base", seed=3, tied=tied)
    hf_to_mm(base, tmp_path / "mm")
    mm_to_hf(tmp_path / "mm", base, tmp_path / "hf")
    batch = Collator(processor)([sample(processor, 1, [(140, 112)], 1)])
    with torch.no_grad():
        logits = [
            load_model(path, torch.float32).eval()(**batch).logits
            for path in (base, tmp_path / "hf")
        ]
    assert torch.equal(*logits)


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


@pytest.fixture(scope="module")
def place(place_of_finetune, base, tmp_path_factory):
    """test_finetune's data with this model."""
    place = tmp_path_factory.mktemp("trained") / "place"
    shutil.copytree(place_of_finetune, place, ignore=shutil.ignore_patterns("base", "mm"))
    shutil.copytree(base, place / "base")
    hf_to_mm(base, place / "mm")
    return place


def test_packed_and_recomputed_training_gives_the_losses_of_the_plain_one(place, tmp_path):
    """Four iterations with the vision encoder."""
    ways = {"plain": {}, "packed": {"tokens_per_pass": 300},
            "again": {"tokens_per_pass": 300, "recompute": "full"}}  # fmt: skip
    losses = {}
    for name, machine in ways.items():
        train(place, tmp_path / name, machine=machine, **SEEING)
        losses[name] = [float(row["loss"]) for row in rows(tmp_path / name)]
    assert losses["packed"] == pytest.approx(losses["plain"], rel=1e-4)
    assert losses["again"] == pytest.approx(losses["packed"], rel=1e-6)
    assert losses["plain"][-1] < losses["plain"][0]


def test_adapters_of_all_parts_are_merged_as_peft_does(place, tmp_path):
    """The projectors whose output enters the decoder's layers too; to the bit."""
    peft = pytest.importorskip("peft")
    lora = {"rank": 4, "alpha": 8, "dropout": 0.0,
            "target_modules": ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"]}  # fmt: skip
    train(place, tmp_path / "save_dir", lora=lora, **SEEING)
    mm_to_hf(tmp_path / "save_dir", place / "base", tmp_path / "merged")
    export_adapter(tmp_path / "save_dir", place / "base", tmp_path / "adapter")
    model = peft.PeftModel.from_pretrained(
        load_model(place / "base", torch.float32), tmp_path / "adapter"
    )
    layers = [layer for layer in model.modules() if hasattr(layer, "lora_A")]
    assert len(layers) == 4 * 7 + 4 * 4 + 4 * 2  # language, vision, projectors
    theirs = model.merge_and_unload().state_dict()
    ours = load_model(tmp_path / "merged", torch.float32).state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


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
