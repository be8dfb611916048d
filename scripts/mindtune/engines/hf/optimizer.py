"""AdamW in fp32, for models whose own weights may be bfloat16."""

from collections.abc import Mapping

import torch


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
        for parameter, _ in self.pairs:
            parameter.grad_dtype = torch.float32
        super().__init__(
            [
                {
                    "params": [p for p in main.values() if p.ndim > 1],
                    "weight_decay": train["weight_decay"],
                },
                {"params": [p for p in main.values() if p.ndim <= 1], "weight_decay": 0.0},
            ],
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
        copies = {name: main.detach() for name, main in self.copies.items()}
        return super().state_dict() | {"main_weights": copies}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping) -> None:
        super().load_state_dict({key: state[key] for key in ("state", "param_groups")})
        for name, weight in state["main_weights"].items():
            self.copies[name].copy_(weight)


def _main(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    if parameter.dtype == torch.float32:
        return parameter
    return torch.nn.Parameter(parameter.detach().float())
