"""Every family but the demo's in the hf engine: sizes, packed passes, training, export, adapters.

What one of them has alone is in test_qwen25.py and test_qwen3.py.
"""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny_qwen3
import tiny_qwen25
import torch
from mindtune.checkpoint import hf_to_mm, load_hf_tensors, mm_to_hf
from mindtune.checkpoint.adapters import export_adapter
from mindtune.engines.hf.checkpoints import published_tensors
from mindtune.engines.hf.dataset import Collator
from mindtune.engines.hf.model import build_model, load_model
from mindtune.engines.hf.packing import Packer, packed_loss
from mindtune.engines.hf.processing import Processor
from mindtune.engines.hf.segments import use_segments
from mindtune.estimates.parameters import count_parameters
from mindtune.models.published import PUBLISHED
from mindtune.models.shape import model_shape, read_config
from mindtune.models.tensors import hf_shapes, tensors_of
from test_finetune import place as finetune_place
from test_finetune import rows, train
from test_packing import difference, gradients, one_by_one, sample, together
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

LOSS, GRADIENT = 1e-6, 1e-5
SEEING = {"freeze_vision_encoder": False, "freeze_vision_projector": False}
TINY = {"qwen2_5_vl": tiny_qwen25, "qwen3_vl": tiny_qwen3}
place_of_finetune = finetune_place  # a fixture


def family_of(base):
    """A base model, its processor, and one model as it was and one that attends by segments."""
    plain, packed = (load_model(base, torch.float32).train() for _ in range(2))
    use_segments(packed)
    return SimpleNamespace(base=base, processor=Processor(base), models=(plain, packed))


def place_of(family, data, place):
    """test_finetune's data with the model of a family."""
    shutil.copytree(data, place, ignore=shutil.ignore_patterns("base", "mm"))
    shutil.copytree(family.base, place / "base")
    hf_to_mm(family.base, place / "mm")
    return place


@pytest.fixture(scope="module", params=TINY)
def family(request, tmp_path_factory):
    base = TINY[request.param].write_base(tmp_path_factory.mktemp(request.param) / "base")
    found = family_of(base)
    found.name, found.tiny = request.param, TINY[request.param]
    return found


@pytest.fixture(scope="module")
def place(place_of_finetune, family, tmp_path_factory):
    return place_of(family, place_of_finetune, tmp_path_factory.mktemp("trained") / "place")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen2.5-VL-3B", 3_754_622_976),
        ("Qwen2.5-VL-7B", 8_292_166_656),
        ("Qwen2.5-VL-32B", 33_452_718_336),
        ("Qwen2.5-VL-72B", 73_410_777_344),
        ("Qwen3-VL-4B", 4_437_815_808),
        ("Qwen3-VL-8B", 8_767_123_696),
    ],
)
def test_the_published_tensors_are_those_of_transformers(name, parameters):
    """Names, shapes and numbers, by transformers' own model, without memory for it."""
    config = PUBLISHED[name]
    third = name.startswith("Qwen3")
    of, settings = (
        (Qwen3VLForConditionalGeneration, Qwen3VLConfig)
        if third
        else (Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLConfig)
    )
    with torch.device("meta"):
        model = of(settings(**config))
    family = tensors_of(model.config)
    theirs = {family.published_name(n): tuple(t.shape) for n, t in model.state_dict().items()}
    if config["tie_word_embeddings"]:
        theirs.pop(family.output_hf)
    assert theirs == hf_shapes(model_shape(config))
    counted = count_parameters(model_shape(config))
    assert counted.all == sum(p.numel() for p in model.parameters()) == parameters
    visual = model.model.visual
    projectors = [*visual.merger.parameters()]
    projectors += [*visual.deepstack_merger_list.parameters()] if third else []
    assert counted.projector == sum(p.numel() for p in projectors)


def packer_of(processor) -> Packer:
    return Packer(1, 4096, processor.image_token_id, processor.image_processor.merge_size)


@pytest.mark.parametrize(("tokens_per_pass", "frozen"), [(60, True), (4096, False)])
def test_packed_passes_give_the_same_loss_and_gradients(family, tokens_per_pass, frozen):
    """Several pictures in a record, pictures of one window and of several, and text alone."""
    (plain, packed), processor = family.models, family.processor
    for model in family.models:
        model.model.visual.requires_grad_(not frozen)
    drawn = [[(140, 112)], [], [(60, 60), (140, 56), (100, 112)], [(30, 28)], [], [(112, 112)] * 2]
    samples = [sample(processor, seed, sizes, 2) for seed, sizes in enumerate(drawn)]
    expected = one_by_one(plain, processor, samples, 2)
    found = together(packed, processor, samples, 2, tokens_per_pass)
    assert found == pytest.approx(expected, rel=LOSS)
    theirs, ours = gradients(plain), gradients(packed)
    assert difference(theirs, ours) < GRADIENT
    if family.name == "qwen3_vl":
        deep = [name for name in ours if "deepstack_merger_list" in name]
        assert len(deep) == (0 if frozen else 3 * 6)
        assert all(ours[name].norm() > 0 for name in deep)


def test_no_sample_and_no_picture_sees_another(family):
    (_, model), processor = family.models, family.processor
    first, second, third = (sample(processor, seed, [(140, 112)], 2) for seed in (1, 2, 3))
    packer = packer_of(processor)
    with torch.no_grad():
        alone = packed_loss(model, packer.packed([first], [1.0])).item()
        for other in (second, third):
            both = packer.packed([other, first], [0.0, 1.0])
            assert packed_loss(model, both).item() == pytest.approx(alone, rel=LOSS)
        # The test can fail: as one picture, or as one sample, the first does see the other.
        for joined in (
            {"grid_thw": both.grid_thw[:1] * torch.tensor([1, 2, 1])},
            {"lengths": (sum(both.lengths),)},
        ):
            assert packed_loss(model, replace(both, **joined)).item() != pytest.approx(
                alone, rel=1e-4
            )


def test_positions_are_those_of_transformers(family):
    (plain, _), processor = family.models, family.processor
    for seed, sizes in enumerate([[], [(56, 84)], [(84, 28), (28, 112), (56, 56)]]):
        one = sample(processor, seed, sizes, 2)
        ids = torch.tensor([one["input_ids"]])
        expected, _ = plain.model.get_rope_index(
            ids, (ids == processor.image_token_id).long(),
            torch.cat([p.grid_thw for p in one["pictures"]]) if sizes else None,
        )  # fmt: skip
        positions = packer_of(processor).positions(ids[0], one["pictures"])
        assert torch.equal(positions, expected[:, 0])


def layout(family, *vision):
    """Of two tensor parallel ranks and two stages, where the framework has them."""
    if family.name == "qwen3_vl":
        return {}
    return {"tp_size": 2, "llm_pp_layers": [1, 3], "vit_pp_layers": [*vision]}


def test_the_model_from_an_mm_checkpoint_is_the_model_from_the_download(family, tmp_path):
    base = family.base
    hf_to_mm(base, tmp_path / "mm", **layout(family, 4, 0))
    tensors = load_hf_tensors(tmp_path / "mm", read_config(base))
    built = published_tensors(build_model(base, tensors, torch.float32))
    loaded = published_tensors(load_model(base, torch.float32))
    assert set(built) == set(loaded)
    assert all(torch.equal(built[name], loaded[name]) for name in built)


def there_and_back(family, base, place):
    """transformers' logits of text and a picture are the same to the last bit."""
    hf_to_mm(base, place / "mm", **layout(family, 2, 2))
    mm_to_hf(place / "mm", base, place / "hf")
    batch = Collator(family.processor)([sample(family.processor, 1, [(140, 112)], 1)])
    with torch.no_grad():
        logits = [
            load_model(path, torch.float32).eval()(**batch).logits for path in (base, place / "hf")
        ]
    assert torch.equal(*logits)


def test_a_model_that_went_there_and_back_says_the_same(family, tmp_path):
    there_and_back(family, family.base, tmp_path)


@pytest.mark.parametrize("family", ["qwen3_vl"], indirect=True)
def test_one_with_an_output_layer_of_its_own_does_too(family, tmp_path):
    base = family.tiny.write_base(tmp_path / "base", seed=3, tied=False)
    there_and_back(family, base, tmp_path)


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


def test_adapters_of_all_parts_are_merged_as_peft_does(family, place, tmp_path):
    """To the bit: the gated MLP of Qwen2.5-VL's vision encoder, whose two inputs share a matrix A, and
    the projectors of Qwen3-VL whose output enters the decoder's layers."""
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
    vision, projectors = {"qwen2_5_vl": (5, 1), "qwen3_vl": (4, 4)}[family.name]
    assert len(layers) == 4 * 7 + 4 * vision + 2 * projectors
    theirs = model.merge_and_unload().state_dict()
    ours = load_model(tmp_path / "merged", torch.float32).state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
