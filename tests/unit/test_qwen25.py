"""Qwen2.5-VL in the hf engine: sizes, windows in a packed pass, training, answers and export."""

import pytest
import torch
from mindtune.engines.hf.processing import IGNORE_INDEX
from mindtune.engines.hf.segments import SegmentsByBounds
from test_families_trained import family_of, packer_of, place_of
from test_finetune import place as finetune_place
from test_finetune import train
from test_packing import sample
from tiny_qwen25 import write_base

place_of_finetune = finetune_place  # a fixture


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return family_of(write_base(tmp_path_factory.mktemp("base") / "Qwen2.5-VL-tiny"))


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


def test_the_tower_attends_by_windows_and_by_pictures(models, processor):
    """Two pictures of 8 x 10 patches: six windows of at most 4 x 4 each."""
    _, model = models
    part = packer_of(processor).packed([sample(processor, 1, [(140, 112)] * 2, 1)], [1.0])
    asked = []

    class Noted(SegmentsByBounds):
        def of(self, bounds):
            asked.append(bounds.diff().tolist())
            return super().of(bounds)

    with torch.no_grad():
        model.model.visual(part.pixel_values, grid_thw=part.grid_thw, segments=Noted())
    windows = [16, 16, 8, 16, 16, 8] * 2
    assert asked == [windows, [80, 80], windows, [80, 80]]


def test_no_window_and_no_picture_sees_another(models, processor):
    """Of layers with windows only, what lies outside a window can't change it; and full ones do see it."""
    _, model = models
    tower = model.model.visual
    part = packer_of(processor).packed([sample(processor, 1, [(140, 112)] * 2, 1)], [1.0])
    window = torch.zeros(4, 5, dtype=torch.bool)
    window[:2, :2] = True  # tokens of the first window of the first picture
    inside = torch.cat([window.flatten(), torch.zeros(20, dtype=torch.bool)])
    first = torch.cat([torch.ones(20, dtype=torch.bool), torch.zeros(20, dtype=torch.bool)])

    def tokens(changed) -> torch.Tensor:
        pixels = part.pixel_values.clone()
        pixels[changed.repeat_interleave(4)] += 1.0
        with torch.no_grad():
            return tower(pixels, grid_thw=part.grid_thw, segments=SegmentsByBounds()).pooler_output

    was = tokens(torch.zeros(40, dtype=torch.bool))
    assert torch.equal(tokens(first)[20:], was[20:])
    assert not torch.equal(tokens(~inside)[:2], was[:2])
    full, tower.fullatt_block_indexes = tower.fullatt_block_indexes, []
    try:
        was = tokens(torch.zeros(40, dtype=torch.bool))
        assert torch.equal(tokens(~inside)[inside], was[inside])
        assert not torch.equal(tokens(~inside)[~inside], was[~inside])
    finally:
        tower.fullatt_block_indexes = full


def test_conversations_are_encoded_as_qwen2_vls(base, processor):
    """The framework trains both with one template; the loss is on the answers."""
    messages = [
        {"role": "user", "content": "<image>\nWhat is the color of the bus?"},
        {"role": "assistant", "content": "Red."},
    ]
    ids, labels = processor.encode_conversation(messages, [torch.tensor([1, 8, 10])], 1024)
    assert processor.tokenizer.decode(ids) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|>" + "<|image_pad|>" * 20 + "<|vision_end|>\nWhat is the color of the bus?"
        "<|im_end|>\n<|im_start|>assistant\nRed.<|im_end|>\n"
    )
    learned = [token for token in labels if token != IGNORE_INDEX]
    assert processor.tokenizer.decode(learned) == "Red.<|im_end|>\n"


def test_kept_features_of_windows_are_those_of_the_tower(place, tmp_path):
    """With the vision encoder frozen each picture is computed once, alone, and read again after that."""
    machine = {"tokens_per_pass": 300}
    kept = tmp_path / "features" / "code"
    first, again = (
        train(place, tmp_path / name, machine=machine, features=kept) for name in ("a", "b")
    )
    assert any(path.is_file() for path in kept.rglob("*"))
    off = train(place, tmp_path / "c", machine=machine | {"feature_cache": "off"})
    assert first == again == off
