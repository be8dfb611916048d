"""AdamW in fp32, for models whose own weights may be bfloat16."""

from collections.abc import Iterable, Iterator, Mapping

import torch

from mindtune.engines.hf.sharding import is_shared, part_like, parts_like


class MainWeightsAdamW(torch.optim.AdamW):
    """AdamW as Megatron runs it: on fp32 copies of the trained weights, its `main` weights.

    Gradients are summed in fp32 over the micro batches, whatever the weights' type; after each
    step the model's weights are the main weights, rounded. The main weights of fp32 weights are those
    themselves. Like in Megatron, biases and vectors do not decay.
    """

    def __init__(self, model: torch.nn.Module, train: Mapping) -> None:
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
            list(_groups(main.values(), train["weight_decay"])),
            lr=train["lr"],
            betas=(train["adam_beta1"], train["adam_beta2"]),
            eps=train["adam_eps"],
            # On a CPU the fused step takes another order, and no time to speak of either way.
            fused=True if model.device.type == "cuda" else None,
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


def _main(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    if parameter.dtype == torch.float32:
        return parameter
    return torch.nn.Parameter(parameter.detach().float())
