"""Memory of a training: counted again at true shapes, and held against what a GPU measured."""

import pytest
import torch
from mindtune.engines.hf.adapters import Adapters
from mindtune.memory import (
    Step,
    activation_bytes,
    layer_bytes,
    shares_of,
    step_of,
    training_memory,
)
from mindtune.models.hf import classes_of
from mindtune.models.published import PUBLISHED
from mindtune.models.shape import model_shape
from mindtune.scale import count_parameters
from mindtune.settings import load
from mindtune.settings.sections import Settings
from mindtune.settings.typed import made_of, typed
from transformers import AttentionInterface, Qwen2VLConfig, Qwen2VLForConditionalGeneration

FUSED = ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"]
TRAIN = {"freeze_vision_encoder": True, "freeze_vision_projector": True, "seed": 1}
WHOLE = typed("train", TRAIN)
LORA = {"rank": 16, "alpha": 32, "dropout": 0.0, "target_modules": FUSED}
GIB = 2**30
TOKENS = 64


class KeptByFlash(torch.autograd.Function):
    """Keeps what a flash attention keeps, and gives a result of the right shape."""

    @staticmethod
    def forward(ctx, query, key, value):
        batch, heads, tokens, size = query.shape
        given = query.new_empty(batch, tokens, heads, size)
        ctx.save_for_backward(query, key, value, given, given.new_empty(query.shape[:3]).float())
        return given


def flash(module, query, key, value, mask, **unused):
    groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(groups, 1) for tensor in (key, value))
    return KeptByFlash.apply(query, key, value), None


def kept(name, lora, precision, layers, recompute=False):
    """Bytes that autograd keeps of a token, of a model of so many layers whose tensors have no content."""
    AttentionInterface.register("kept", flash)
    raw = PUBLISHED[name]
    fewer = {"num_hidden_layers": layers}
    raw = raw | ({"text_config": raw["text_config"] | fewer} if "text_config" in raw else fewer)
    vision = {"depth": 3, "deepstack_visual_indexes": [0, 1, 2]}
    raw["vision_config"] = raw["vision_config"] | vision
    classes = classes_of(raw["model_type"])
    with torch.device("meta"):
        model = classes.MODEL(classes.CONFIG(**raw))
    model.to(torch.bfloat16 if precision == "bf16" else torch.float32).train()
    if lora:
        Adapters(model, raw, typed("train", TRAIN | {"lora": lora}))
    if recompute:
        model.activation_checkpointing_enable(
            activation_checkpointing_kwargs={"use_reentrant": False}
        )
    language = model.model.language_model
    language.config._attn_implementation = "kept"
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    found = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage
        return tensor

    given = torch.empty(1, TOKENS, language.config.hidden_size, device="meta", dtype=model.dtype)
    places = torch.empty(3, 1, TOKENS, dtype=torch.long, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        language(inputs_embeds=given.requires_grad_(), position_ids=places, use_cache=False)
    return sum(storage.nbytes() for storage in found.values()) / TOKENS


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize(
    "lora",
    [None, LORA, LORA | {"target_modules": ["linear_fc2"]}, LORA | {"target_modules": ["q_proj"]}],
    ids=["whole", "all", "one", "one of a module"],
)
def test_a_layer_keeps_what_autograd_keeps(name, lora):
    train = typed("train", TRAIN | ({"lora": lora} if lora else {}))
    for precision in ("bf16", "fp32") if name == "Qwen2-VL-2B" else ("bf16",):
        one, three = (kept(name, lora, precision, layers) for layers in (1, 3))
        wanted = layer_bytes(model_shape(PUBLISHED[name]), train, precision)
        assert wanted == pytest.approx((three - one) / 2, rel=0.02), precision


def test_recomputing_keeps_the_inputs_of_layers():
    shape = model_shape(PUBLISHED["Qwen2-VL-2B"])
    one, three = (kept("Qwen2-VL-2B", None, "bf16", layers, recompute=True) for layers in (1, 3))
    step = Step(TOKENS, TOKENS, recompute=True)
    whole = activation_bytes(shape, WHOLE, "bf16", step) / TOKENS
    inputs = (whole - layer_bytes(shape, WHOLE, "bf16")) / shape.llm_layers
    assert inputs == pytest.approx((three - one) / 2, rel=0.02)


# What one H100 measured (the trial of November 2026): 2B in bf16, 24 conversations of 11,343 tokens, the
# longest of 622, with 2,367 in answers; gradients in bf16, no optimizer. samples at once, tokens, logits,
# whether there are gradients of an iteration before, and GiB.
MEASURED = [
    ("one, all logits", 624, 624, True, 10.1),
    ("one", 624, 203, True, 9.6),
    ("4", 4 * 624, 641, True, 16.0),
    ("8", 8 * 624, 1169, True, 24.5),
    ("24", 24 * 624, 2367, False, 52.9),
    ("packed, 4,096", 3964, 887, True, 20.6),
    ("packed", 11343, 2367, False, 42.0),
    ("packed, liger", 11343, 2367, False, 33.1),
]


@pytest.mark.parametrize("measured", MEASURED, ids=[row[0] for row in MEASURED])
def test_sums_are_within_4_percent_of_what_a_gpu_measured(measured):
    name, tokens, predicted, before, gib = measured
    operators = "liger" if "liger" in name else "torch"
    shape = model_shape(PUBLISHED["Qwen2-VL-2B"])
    counts = count_parameters(shape)
    need = training_memory(
        shape, counts.all, WHOLE, "bf16", Step(tokens, predicted, False, operators)
    )
    pixels = 30504 * 1176 * 4  # of all samples, which that trial had on the device
    found = need.weights + need.activations + need.logits + pixels
    found += need.gradients / 2 if before else 0  # 2 bytes each there, and not 4
    assert found == pytest.approx(gib * GIB, rel=0.04)


def test_settings_say_what_goes_through_at_once():
    def of(raw):
        return step_of(load(raw).typed())

    assert of({"train": {"micro_batch_size": 2, "seq_length": 512}}) == Step(1024, 1024)
    packed = of({"hf": {"tokens_per_pass": 4096, "recompute": "full"}})
    assert packed == Step(4096, 1024, recompute=True)
    assert of({"engine": "mindspeed"}) == Step(1024, 1024, operators="mindspeed")


def test_adapters_take_next_to_nothing():
    shape = model_shape(PUBLISHED["Qwen2-VL-7B"])
    counts = count_parameters(shape)
    step = Step(1024, 1024)
    whole, low = (
        training_memory(shape, counts.all, typed("train", TRAIN | more), "bf16", step)
        for more in ({}, {"lora": LORA})
    )
    assert whole.gradients + whole.optimizer == 16 * counts.trained(WHOLE)
    assert low.gradients + low.optimizer < 0.04 * whole.weights
    assert low.all < 0.25 * whole.all


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "adapters"])
def test_what_devices_share_is_counted_as_it_lies_on_them(lora):
    """Of a model without content, cut as `shard_layers` cuts it for one of four devices."""
    shape = model_shape(PUBLISHED["Qwen2-VL-7B"])
    train = typed("train", TRAIN | ({"lora": lora} if lora else {}))
    raw = PUBLISHED["Qwen2-VL-7B"]
    with torch.device("meta"):
        model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(**raw)).to(torch.bfloat16)
    if lora:
        Adapters(model, raw, train)
    layers = model.model.language_model.layers
    here = {id(parameter) for parameter in layers.parameters()}
    weights = gradients = optimizer = 0.0
    for name, parameter in model.named_parameters():
        trained = ".lora_" in name if lora else not name.startswith("model.visual")
        part = parameter.numel() / (4 if id(parameter) in here else 1)
        shared = trained and id(parameter) in here
        weights += part * (4 if shared else 2)
        gradients += 4 * part * trained
        optimizer += (8 if shared else 12) * part * trained
    weights += 2 * 2 * sum(p.numel() for n, p in layers[0].named_parameters() if ".lora_" not in n)
    machine = {"shard": "layers", "nodes": 4}  # a key at its default may be left out
    shares = shares_of(made_of(Settings, {"engine": "hf", "hf": machine}))
    need = training_memory(
        shape, count_parameters(shape).all, train, "bf16", Step(1, 1), shares=shares
    )
    assert need.weights == pytest.approx(weights, rel=1e-3)
    assert need.gradients == pytest.approx(gradients, rel=1e-3)
    assert need.optimizer == pytest.approx(optimizer, rel=1e-3)
