"""Qwen2.5-VL in the hf engine: sizes, windows in a packed pass, training, answers and export."""

import shutil

import pytest
import torch
from mindtune.checkpoint import hf_to_mm, load_hf_tensors, mm_to_hf
from mindtune.checkpoint.adapters import export_adapter
from mindtune.engines.hf.checkpoints import published_tensors
from mindtune.engines.hf.dataset import Collator
from mindtune.engines.hf.model import build_model, load_model
from mindtune.engines.hf.packing import Packer, packed_loss
from mindtune.engines.hf.processing import IGNORE_INDEX
from mindtune.engines.hf.segments import SegmentsByBounds, use_segments
from mindtune.models.published import PUBLISHED
from mindtune.models.shape import model_shape, read_config
from mindtune.models.tensors import hf_shapes, tensors_of
from mindtune.scale import count_parameters
from test_finetune import place as finetune_place
from test_finetune import rows, train
from test_packing import difference, gradients, one_by_one, sample, together
from tiny_qwen25 import write_base
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

LOSS, GRADIENT = 1e-6, 1e-5
SEEING = {"freeze_vision_encoder": False, "freeze_vision_projector": False}
place_of_finetune = finetune_place  # a fixture


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "Qwen2.5-VL-tiny")


@pytest.fixture(scope="module")
def models(base):
    """One model as it was and one that attends by segments, with the same weights."""
    plain, packed = (load_model(base, torch.float32).train() for _ in range(2))
    use_segments(packed)
    return plain, packed


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen2.5-VL-3B", 3_754_622_976),
        ("Qwen2.5-VL-7B", 8_292_166_656),
        ("Qwen2.5-VL-32B", 33_452_718_336),
        ("Qwen2.5-VL-72B", 73_410_777_344),
    ],
)
def test_the_published_tensors_are_those_of_transformers(name, parameters):
    """Names, shapes and numbers, by transformers' own model, without memory for it."""
    config = PUBLISHED[name]
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**config))
    family = tensors_of(model.config)
    theirs = {family.published_name(n): tuple(t.shape) for n, t in model.state_dict().items()}
    if config["tie_word_embeddings"]:
        theirs.pop(family.output_hf)
    assert theirs == hf_shapes(model_shape(config))
    counted = count_parameters(model_shape(config))
    assert counted.all == sum(p.numel() for p in model.parameters()) == parameters
    assert counted.projector == sum(p.numel() for p in model.model.visual.merger.parameters())


def packer_of(processor) -> Packer:
    return Packer(1, 4096, processor.image_token_id, processor.image_processor.merge_size)


@pytest.mark.parametrize(("tokens_per_pass", "frozen"), [(60, True), (4096, False)])
def test_packed_passes_give_the_same_loss_and_gradients(models, processor, tokens_per_pass, frozen):
    """Several pictures in a record, pictures of one window and of several, and text alone."""
    plain, packed = models
    for model in models:
        model.model.visual.requires_grad_(not frozen)
    drawn = [[(140, 112)], [], [(60, 60), (140, 56), (100, 112)], [(30, 28)], [], [(112, 112)] * 2]
    samples = [sample(processor, seed, sizes, 2) for seed, sizes in enumerate(drawn)]
    expected = one_by_one(plain, processor, samples, 2)
    found = together(packed, processor, samples, 2, tokens_per_pass)
    assert found == pytest.approx(expected, rel=LOSS)
    assert difference(gradients(plain), gradients(packed)) < GRADIENT


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


def test_no_sample_sees_another(models, processor):
    _, model = models
    first, second, third = (sample(processor, seed, [(140, 112)], 2) for seed in (1, 2, 3))
    packer = packer_of(processor)
    with torch.no_grad():
        alone = packed_loss(model, packer.packed([first], [1.0])).item()
        for other in (second, third):
            both = packer.packed([other, first], [0.0, 1.0])
            assert packed_loss(model, both).item() == pytest.approx(alone, rel=LOSS)
        # The test can fail: as one picture and one sample, the first does see the other.
        whole = both.grid_thw[:1] * torch.tensor([1, 2, 1])
        joined = type(both)(**{**vars(both), "grid_thw": whole})
        assert packed_loss(model, joined).item() != pytest.approx(alone, rel=1e-4)


def test_positions_are_those_of_transformers(models, processor):
    plain, _ = models
    for seed, sizes in enumerate([[(56, 84)], [(84, 28), (28, 112), (56, 56)]]):
        one = sample(processor, seed, sizes, 2)
        ids = torch.tensor([one["input_ids"]])
        expected, _ = plain.model.get_rope_index(
            ids, (ids == processor.image_token_id).long(),
            torch.cat([p.grid_thw for p in one["pictures"]]),
        )  # fmt: skip
        positions = packer_of(processor).positions(ids[0], one["pictures"])
        assert torch.equal(positions, expected[:, 0])


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


def test_the_model_from_an_mm_checkpoint_is_the_model_from_the_download(base, tmp_path):
    hf_to_mm(base, tmp_path / "mm", tp_size=2, llm_pp_layers=[1, 3], vit_pp_layers=[4, 0])
    tensors = load_hf_tensors(tmp_path / "mm", read_config(base))
    built = published_tensors(build_model(base, tensors, torch.float32))
    loaded = published_tensors(load_model(base, torch.float32))
    assert set(built) == set(loaded)
    assert all(torch.equal(built[name], loaded[name]) for name in built)


def test_a_model_that_went_there_and_back_says_the_same(base, processor, tmp_path):
    """transformers' logits of text and a picture, to the last bit."""
    mm, layout = tmp_path / "mm", {"llm_pp_layers": [1, 3], "vit_pp_layers": [2, 2]}
    hf_to_mm(base, mm, tp_size=2, **layout)
    mm_to_hf(mm, base, tmp_path / "hf")
    batch = Collator(processor)([sample(processor, 1, [(140, 112)], 1)])
    with torch.no_grad():
        logits = [
            load_model(path, torch.float32).eval()(**batch).logits
            for path in (base, tmp_path / "hf")
        ]
    assert torch.equal(*logits)


@pytest.fixture(scope="module")
def place(place_of_finetune, base, tmp_path_factory):
    """test_finetune's data with this model."""
    place = tmp_path_factory.mktemp("trained") / "place"
    shutil.copytree(place_of_finetune, place, ignore=shutil.ignore_patterns("base", "mm"))
    shutil.copytree(base, place / "base")
    hf_to_mm(base, place / "mm")
    return place


def test_packed_and_recomputed_training_gives_the_losses_of_the_plain_one(place, tmp_path):
    """Four iterations with the vision encoder, hence through windows that are computed twice."""
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
    """The gated MLP of the vision encoder too, whose two inputs share a matrix A; to the bit."""
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
    assert len(layers) == 4 * 7 + 4 * 5 + 2  # language, vision, projector
    theirs = model.merge_and_unload().state_dict()
    ours = load_model(tmp_path / "merged", torch.float32).state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


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
