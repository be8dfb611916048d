"""How much memory of its devices a training takes, part by part.

Weights, gradients and optimizer follow from numbers of parameters. Activations are what autograd keeps
of each layer of the language model until its gradients are computed, counted tensor by tensor for
transformers' modules (tests/unit/test_memory.py counts them again, at true shapes), and for
MindSpeed-MM's fused operators as they are documented, which was not measured on an NPU. A frozen vision
tower keeps none; of a trained one nothing is counted. docs/scaling.md holds the sums against measurements.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mindtune.models.adapters import (
    Adapted,
    adapted,
    adapter_parameters,
    fused_word,
    trained_parameters,
)
from mindtune.models.shape import ModelShape
from mindtune.models.tensors import tensors_of

FP32 = 4
WIDTH = {"fp32": 4, "bf16": 2}
MOMENTS = 2  # of Adam, in fp32
# fp32 numbers for each logit as the loss begins to go backward: itself, its logarithm, and the
# gradients of both.
LOGIT = 4 * FP32
TORCH, MINDSPEED = "torch", "mindspeed"


@dataclass(frozen=True)
class Step:
    """What goes through a model at once on a device.

    tokens: of all samples together, at most. predicted: those of which logits are computed.
    recompute: whether layers keep their input only. operators: whose norms and functions, `torch`'s,
    `liger`'s or `mindspeed`'s; the latter two keep no steps between.
    """

    tokens: int
    predicted: int
    recompute: bool = False
    operators: str = TORCH


@dataclass(frozen=True)
class Memory:
    """Bytes of one copy of the model, on all of its devices."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    stepping: float

    @property
    def all(self) -> float:
        """At most at a time: activations are gone when the optimizer makes its step."""
        passing = self.activations + self.logits
        return self.weights + self.gradients + self.optimizer + max(passing, self.stepping)


def training_memory(
    shape: ModelShape, parameters: int, train: Mapping[str, Any], precision: str, step: Step
) -> Memory:
    """What a training takes. parameters: of the whole model."""
    width, trained = WIDTH[precision], trained_parameters(shape, train)
    weights = width * (parameters + _adapters(shape, train))
    copies = MOMENTS + (precision != "fp32")
    return Memory(
        weights=weights,
        gradients=FP32 * trained,
        optimizer=FP32 * copies * trained,
        activations=activation_bytes(shape, train, precision, step),
        logits=LOGIT * shape.vocab * step.predicted,
        stepping=0
        if step.operators == MINDSPEED
        else FP32 * trained,  # roots of all second moments at once
    )


def _adapters(shape: ModelShape, train: Mapping[str, Any]) -> int:
    lora = train.get("lora")
    return adapter_parameters(shape, lora, train) if lora else 0


def step_of(settings: Mapping[str, Any]) -> Step:
    """What the settings of an experiment put through the model at once; conversations at their longest."""
    train = settings["train"]
    tokens = train["micro_batch_size"] * train["seq_length"]
    if settings["engine"] == MINDSPEED:
        tokens //= settings["parallel"]["context_parallel_size"]
        return Step(tokens, tokens, operators=MINDSPEED)
    packed = settings["hf"].get("tokens_per_pass")
    recompute = settings["hf"].get("recompute") == "full"
    operators = settings["hf"].get("kernels") or TORCH
    if packed:
        tokens = max(packed, train["seq_length"])
        return Step(tokens, round(tokens * ANSWERED), recompute, operators)
    return Step(tokens, tokens, recompute, operators)


# Of the tokens of a packed pass, how many are in answers: of LLaVA-Instruct's conversations.
ANSWERED = 0.25


def activation_bytes(
    shape: ModelShape, train: Mapping[str, Any], precision: str, step: Step
) -> float:
    """What is kept of the language model until its gradients are computed."""
    layer = layer_bytes(shape, train, precision, step.operators) * step.tokens
    if not step.recompute:
        return layer * shape.llm_layers
    return layer + WIDTH[precision] * shape.hidden * step.tokens * shape.llm_layers


def layer_bytes(
    shape: ModelShape, train: Mapping[str, Any], precision: str, operators: str = TORCH
) -> float:
    """What a layer keeps of a token.

    Of each norm its input in fp32, what is multiplied with its weight, and its output; of attention what
    it is given and gives; of the feed-forward layer both inputs of the product, the one before its
    function too, and the product. Fused operators keep inputs and outputs. A frozen weight has no use for what it is multiplied with; an adapter
    has it, and adds its own small inner vector.
    """
    width, lora = WIDTH[precision], train.get("lora")
    inputs = _kept_inputs(shape, train)
    plain = operators == TORCH
    norm = FP32 + (0 if lora else width) if plain else width
    repeated = shape.kv_heads if operators == MINDSPEED else shape.heads
    attention = width * (shape.heads + 2 * repeated)
    kept = 2 * norm * shape.hidden
    kept += attention * shape.head_dim + FP32 * shape.heads
    kept += width * (3 if plain else 2) * shape.ffn
    kept += width * (
        shape.hidden * (inputs["attention"] + inputs["feed-forward"])
        + shape.ffn * inputs["product"]
    )
    kept += width * shape.heads * shape.head_dim  # what attention gives, its own output
    if lora:
        kept += width * _inner(shape, train)
    return kept


def _kept_inputs(shape: ModelShape, train: Mapping[str, Any]) -> dict[str, int]:
    """Whether the inputs of attention, feed-forward layer and last product are kept, as 1 or 0."""
    words = {"attention": "linear_qkv", "feed-forward": "linear_fc1", "product": "linear_fc2"}
    if not train.get("lora"):
        return dict.fromkeys(words, 1)
    there = {fused_word(module.entry.mm) for module in _in_language(shape, train)}
    return {name: int(word in there) for name, word in words.items()}


def _in_language(shape: ModelShape, train: Mapping[str, Any]) -> list[Adapted]:
    family = tensors_of(shape)
    modules = adapted(shape, train["lora"], train)
    return [module for module in modules if family.kind(module.entry.hf[0]) == "language"]


def _inner(shape: ModelShape, train: Mapping[str, Any]) -> float:
    """Numbers that adapters add to what a layer keeps of a token."""
    layers = sum(len(module.hf) for module in _in_language(shape, train))
    return train["lora"]["rank"] * layers / shape.llm_layers
