"""AdamW on fp32 weights, for models whose own weights may be bfloat16."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch

from mindtune.engines.hf.quantizing import bitsandbytes_for
from mindtune.engines.hf.sharding import is_shared, part_like, parts_like

if TYPE_CHECKING:
    from mindtune.settings.sections.train import Train

ADAMW_8BIT = "adamw_8bit"
EIGHT_BITS = ("hf.optimizer", ADAMW_8BIT, "adamw")


class MainWeights:
    """AdamW as Megatron runs it: on fp32 copies of the trained weights, its `main` weights.

    It goes before a class of optimizers that has AdamW's arguments.

    Gradients are summed in fp32 over the micro batches, whatever the weights' type; after each
    step the model's weights are the main weights, rounded. The main weights of fp32 weights are those
    themselves. Like in Megatron, biases and vectors do not decay.
    """

    def __init__(self, model: torch.nn.Module, train: "Train", **more) -> None:
        """more: arguments of the class behind."""
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        main = {name: _main(parameter) for name, parameter in trained.items()}
        self.copies = {name: main[name] for name, own in trained.items() if main[name] is not own}
        self.pairs = [(trained[name], copy) for name, copy in self.copies.items()]
        # float32 where the model's others are not, and the files don't hold them either.
        self.shared = {
            name: own for name, own in trained.items()
            if is_shared(own) and own.dtype != model.lm_head.weight.dtype
        }  # fmt: skip
        for parameter, _ in self.pairs:
            parameter.grad_dtype = torch.float32
        super().__init__(
            list(_groups(main.values(), train.weight_decay)),
            lr=train.lr,
            betas=(train.adam_beta1, train.adam_beta2),
            eps=train.adam_eps,
            **more,
        )

    @torch.no_grad()
    def step(self, closure=None):
        for parameter, main in self.pairs:
            main.grad = parameter.grad
        loss = super().step(closure)
        for parameter, main in self.pairs:
            parameter.copy_(main)
            main.grad = None
        return loss

    def state_dict(self) -> dict:
        """The moments and, where they are not the model's own, the main weights by name."""
        main = (self.copies | self.shared).items()
        copies = {name: weight.detach() for name, weight in main}
        return super().state_dict() | {"main_weights": copies}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping) -> None:
        own = [p for group in self.param_groups for p in group["params"]]
        moments = parts_like(state["state"], own)
        super().load_state_dict({"state": moments, "param_groups": state["param_groups"]})
        for name, weight in state["main_weights"].items():
            main = (self.copies | self.shared)[name]
            main.copy_(part_like(weight, main))


def _groups(parameters: Iterable[torch.nn.Parameter], decay: float) -> Iterator[dict]:
    """Matrices, which decay, and vectors; apart where several devices share them, for no operation of
    torch's takes both kinds."""
    kinds: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {
        (False, True): [], (False, False): [], (True, True): [], (True, False): []
    }  # fmt: skip
    for parameter in parameters:
        kinds[is_shared(parameter), parameter.ndim > 1].append(parameter)
    for (shared, decays), members in kinds.items():
        if members or not shared:
            yield {"params": members, "weight_decay": decay if decays else 0.0}


class MainWeightsAdamW(MainWeights, torch.optim.AdamW):
    """With moments in fp32."""

    def __init__(self, model: torch.nn.Module, train: "Train") -> None:
        # On a CPU the fused step takes another order, and no time to speak of either way.
        super().__init__(model, train, fused=True if model.device.type == "cuda" else None)


def optimizer_of(model: torch.nn.Module, train: "Train", kind: str | None) -> torch.optim.Optimizer:
    """The optimizer of a training. kind: the key `hf.optimizer`.

    Raises
    ------
    UserError: its package is not installed.
    """
    if kind != ADAMW_8BIT:
        return MainWeightsAdamW(model, train)
    return type("MainWeightsAdamW8bit", (MainWeights, adamw_8bit()), {})(model, train)


def check_optimizer(kind: str | None) -> None:
    """
    Raises
    ------
    UserError: its package is not installed.
    """
    if kind == ADAMW_8BIT:
        adamw_8bit()


def adamw_8bit() -> type[torch.optim.Optimizer]:
    """bitsandbytes' AdamW with moments of 8 bits, in blocks of 256 with a scale each.

    Moments of less than 4,096 weights are in fp32 there, too.
    """
    return bitsandbytes_for(EIGHT_BITS).optim.AdamW8bit


def _main(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    if parameter.dtype == torch.float32:
        return parameter
    return torch.nn.Parameter(parameter.detach().float())
