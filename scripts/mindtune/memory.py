"""How much memory of its devices a training takes, part by part.

Weights, gradients and optimizer follow from numbers of parameters. Activations are what autograd keeps
of each layer of the language model until its gradients are computed, counted tensor by tensor for
transformers' modules (tests/unit/test_memory.py counts them again at true shapes, and what whole iterations take), and for
MindSpeed-MM's fused operators as they are documented, which was not measured on an NPU. A frozen vision
tower keeps none; of a trained one nothing is counted. docs/scaling.md holds the sums against measurements.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mindtune.engines.checks import MOMENTS
from mindtune.models.adapters import (
    Adapted,
    adapted,
    adapter_parameters,
    fused_word,
    trained_parameters,
)
from mindtune.models.shape import ModelShape
from mindtune.models.tensors import hf_shapes, tensors_of

if TYPE_CHECKING:
    from mindtune.settings.sections import Settings
    from mindtune.settings.sections.train import Train

FP32 = 4
WIDTH = {"fp32": 4, "bf16": 2}
# Of a weight in 4 bits: itself, its share in a scale of 8 bits for 64, and in one of fp32 for 256 of these.
NF4 = 0.5 + 1 / 64 + FP32 / (64 * 256)
# fp32 numbers for each logit as the loss begins to go backward: the logarithm of its share, and the
# gradients of that and of the logit, which is gone itself.
LOGIT = 3 * FP32
TORCH, MINDSPEED = "torch", "mindspeed"


@dataclass(frozen=True)
class Step:
    """What goes through a model at once on a device.

    tokens: of all samples together, at most. predicted: those of which logits are computed.
    recompute: whether layers keep their input only. operators: whose norms and functions, `torch`'s,
    `liger`'s or `mindspeed`'s; the latter two keep no steps between. optimizer,
    frozen_weights: the keys `hf.optimizer` and `hf.frozen_weights`. alone: whether it is all of an
    iteration, so that there are no gradients of others yet as it begins to go backward.
    """

    tokens: int
    predicted: int
    recompute: bool = False
    operators: str = TORCH
    optimizer: str = "adamw"
    frozen_weights: str = "whole"
    alone: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes of one copy of the model, on all of its devices.

    again: of the activations, those of the layer that is computed again as its gradients are. alone: as
    of `Step`.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    again: float = 0.0
    alone: bool = False

    @property
    def all(self) -> float:
        """At most at a time.

        That is as the loss begins to go backward, when no layer is computed again yet and a step that is
        alone has no gradients; or later, without the logits. Of a step that is alone what is kept of the
        layers is then given back, one by one, as their gradients come.
        """
        kept = self.activations - self.again
        first = kept + self.logits + (0 if self.alone else self.gradients)
        both = max(kept, self.gradients) if self.alone else kept + self.gradients
        return self.weights + self.optimizer + max(first, both + self.again)


def training_memory(
    shape: ModelShape,
    parameters: int,
    train: "Train",
    precision: str,
    step: Step,
    shares: int = 1,
) -> Memory:
    """What a training takes. parameters: of the whole model. shares: devices that share its layers
    (`hf.shard`), of which this is said for one: their trained weights are in fp32, which are then
    the optimizer's own, and two layers at a time are whole."""
    width, trained = WIDTH[precision], trained_parameters(shape, train)
    layers, layers_trained = _shared(shape, train) if shares > 1 else (0, 0)
    frozen = layers - (0 if train.lora else layers_trained)
    weights = width * (parameters + adapter_parameters(shape, train) - frozen - layers_trained)
    weights += (width * frozen + FP32 * layers_trained) / shares
    weights += 2 * width * layers / shape.llm_layers
    if step.frozen_weights == "nf4":
        weights -= (width - NF4) * _linear(shape)
    gradients = trained - layers_trained * (1 - 1 / shares)
    own = FP32 if precision != "fp32" else 0  # the main weights
    return Memory(
        weights=weights,
        gradients=FP32 * gradients,
        optimizer=(own + MOMENTS[step.optimizer]) * (trained - layers_trained)
        + MOMENTS[step.optimizer] * layers_trained / shares,
        activations=activation_bytes(shape, train, precision, step),
        logits=LOGIT * shape.vocab * step.predicted,
        again=step.tokens * layer_bytes(shape, train, precision, step.operators) * step.recompute,
        alone=step.alone,
    )


def shares_of(settings: "Settings") -> int:
    """Over how many devices the settings of an experiment share the layers of one copy."""
    machine = settings.hf
    if settings.engine == MINDSPEED or machine.shard == "none":
        return 1
    return machine.devices * machine.nodes


def _linear(shape: ModelShape) -> int:
    """Weights of the linear modules in the language model's layers."""
    family = tensors_of(shape)
    return sum(
        math.prod(sides)
        for name, sides in hf_shapes(shape).items()
        if family.kind(name) == "language" and ".layers." in name and len(sides) > 1
    )


def _shared(shape: ModelShape, train: "Train") -> tuple[int, int]:
    """Parameters of the language model's layers without adapters, and those that are trained in them."""
    family = tensors_of(shape)
    layers = {
        name: math.prod(sides)
        for name, sides in hf_shapes(shape).items()
        if family.kind(name) == "language" and ".layers." in name
    }
    if train.lora:
        return sum(layers.values()), adapter_parameters(shape, train)
    return sum(layers.values()), sum(
        size for name, size in layers.items() if family.is_trained(name, train)
    )


def step_of(settings: "Settings") -> Step:
    """What the settings of an experiment put through the model at once; conversations at their longest."""
    train = settings.train
    tokens = train.micro_batch_size * train.seq_length
    if settings.engine == MINDSPEED:
        tokens //= settings.parallel.context_parallel_size
        return Step(tokens, tokens, operators=MINDSPEED)
    packed = settings.hf.tokens_per_pass
    chosen = {
        "recompute": settings.hf.recompute == "full",
        "operators": settings.hf.kernels,
        "optimizer": settings.hf.optimizer,
        "frozen_weights": settings.hf.frozen_weights,
    }
    whole = train.global_batch_size // (settings.hf.devices * settings.hf.nodes)
    if packed:
        longest = whole * train.seq_length
        tokens = min(max(packed, train.seq_length), longest)
        return Step(tokens, round(tokens * ANSWERED), alone=tokens == longest, **chosen)
    return Step(tokens, tokens, alone=train.micro_batch_size == whole, **chosen)


# Of the tokens of a packed pass, how many are in answers: of LLaVA-Instruct's conversations.
ANSWERED = 0.25


def activation_bytes(shape: ModelShape, train: "Train", precision: str, step: Step) -> float:
    """What is kept of the language model until its gradients are computed."""
    layer = layer_bytes(shape, train, precision, step.operators) * step.tokens
    if not step.recompute:
        return layer * shape.llm_layers
    return layer + WIDTH[precision] * shape.hidden * step.tokens * shape.llm_layers


# The norm of queries, in the families that have one (and one of keys).
HEADS_NORM = "text_decoder.decoder.layers.0.self_attention.q_layernorm.weight"


def layer_bytes(shape: ModelShape, train: "Train", precision: str, operators: str = TORCH) -> float:
    """What a layer keeps of a token.

    Of each norm its input in fp32, what is multiplied with its weight, and its output (of those of queries and
    keys, which some families have, attention counts it); of attention what
    it is given and gives; of the feed-forward layer both inputs of the product, the one before its
    function too, and the product. Fused operators keep inputs and outputs. A frozen weight has no use for what it is multiplied with; an adapter
    has it, and adds its own small inner vector.
    """
    width, lora = WIDTH[precision], train.lora
    inputs = _kept_inputs(shape, train)
    plain = operators == TORCH
    norm = FP32 + (0 if lora else width) if plain else width
    repeated = shape.kv_heads if operators == MINDSPEED else shape.heads
    attention = width * (shape.heads + 2 * repeated)
    kept = 2 * norm * shape.hidden
    if tensors_of(shape).rule_of(HEADS_NORM):
        own = FP32 + (0 if lora else width)  # transformers' whoever computes the others
        kept += own * (shape.heads + shape.kv_heads) * shape.head_dim
    kept += attention * shape.head_dim + FP32 * shape.heads
    kept += width * (3 if plain else 2) * shape.ffn
    kept += width * (
        shape.hidden * (inputs["attention"] + inputs["feed-forward"])
        + shape.ffn * inputs["product"]
    )
    kept += width * shape.heads * shape.head_dim  # what attention gives, its own output
    if lora:
        kept += width * lora.rank * _adapters_of_a_layer(shape, train)
    return kept


def _kept_inputs(shape: ModelShape, train: "Train") -> dict[str, int]:
    """Whether the inputs of attention, feed-forward layer and last product are kept, as 1 or 0."""
    words = {"attention": "linear_qkv", "feed-forward": "linear_fc1", "product": "linear_fc2"}
    if not train.lora:
        return dict.fromkeys(words, 1)
    there = {fused_word(module.entry.mm) for module in _in_language(shape, train)}
    return {name: int(word in there) for name, word in words.items()}


def _in_language(shape: ModelShape, train: "Train") -> list[Adapted]:
    family = tensors_of(shape)
    modules = adapted(shape, train)
    return [module for module in modules if family.kind(module.entry.hf[0]) == "language"]


def _adapters_of_a_layer(shape: ModelShape, train: "Train") -> float:
    """How many adapters a layer has: each keeps a number of a token for each of its ranks."""
    layers = sum(len(module.hf) for module in _in_language(shape, train))
    return layers / shape.llm_layers
