"""Low-rank adapters by peft: nothing else of the model is trained, or in a checkpoint.

peft is optional, and imported where adapters are wanted only.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from mindtune.engines.checks import check_adapters
from mindtune.engines.hf.quantizing import is_quantized
from mindtune.errors import UserError
from mindtune.models.adapters import adapted
from mindtune.models.shape import model_shape
from mindtune.models.tensors import tensors_of

if TYPE_CHECKING:
    from mindtune.settings.sections.train import Train

NAME = "default"  # of the adapter, in peft's sense


def check_lora(config: Mapping[str, Any], train: "Train") -> None:
    """
    config: content of config.json.

    Raises
    ------
    UserError: `train.lora` does not fit the model, or peft is not installed.
    """
    if find_spec("peft") is None:
        raise UserError(
            "train.lora is given, but peft is not installed in this environment; "
            "`pip install -r envs/lora.txt`, or take it out."
        )
    check_adapters(config, train)


class Adapters:
    """The adapters of a model, which gets them; all else in it is frozen.

    model: one of transformers', on the CPU. config: content of config.json. The adapters have the model's dtype, and begin with what
    `train.seed` draws: B is zero, so that the model is the base at first.
    """

    def __init__(self, model: torch.nn.Module, config: Mapping[str, Any], train: "Train") -> None:
        from peft import LoraConfig, inject_adapter_in_model

        lora = train.lora
        if lora is None:
            raise TypeError("train.lora is not given")
        shape = model_shape(dict(config))
        family = tensors_of(shape)
        own = {family.published_name(name): name for name, _ in model.named_modules()}
        modules = adapted(shape, train)
        wanted = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=[own[name] for module in modules for name in module.hf],
        )
        model.is_loaded_in_4bit = is_quantized(model)  # peft asks it how its modules are made
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(train.seed)
            inject_adapter_in_model(wanted, model, NAME)
        del model.is_loaded_in_4bit
        self.modules: dict[str, tuple[torch.nn.Module, ...]] = {}
        self.weights: dict[str, torch.nn.Module] = {}
        for module in modules:
            layers = tuple(model.get_submodule(own[name]) for name in module.hf)
            for layer in layers[1:]:  # parts of a fused module share A
                layer.lora_A[NAME].weight = layers[0].lora_A[NAME].weight
            self.modules[module.mm if module.fused else module.hf[0]] = layers
            weights = (f"{name}.weight" for name in module.hf)
            self.weights |= dict(zip(weights, layers, strict=True))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(".lora_" in name)
            if ".lora_" in name:
                parameter.data = parameter.data.to(model.dtype)

    def tensors(self) -> dict[str, tuple[torch.Tensor, ...]]:
        """Module -> A and the B of each part, as `save_adapters` takes them."""
        return {
            name: (
                layers[0].lora_A[NAME].weight.detach(),
                *(layer.lora_B[NAME].weight.detach() for layer in layers),
            )
            for name, layers in self.modules.items()
        }

    @torch.no_grad()
    def load(self, pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Take over what `load_adapters` read.

        Raises
        ------
        UserError: these are other adapters.
        """
        if pairs.keys() != self.weights.keys():
            other = sorted(pairs.keys() ^ self.weights.keys())[0]
            raise UserError(
                f"the checkpoint has adapters of other modules than train.lora.target_modules names, the "
                f"first being {other}; move it away to train from the base."
            )
        for name, (a, b) in pairs.items():
            layer = self.weights[name]
            for wanted, given in ((layer.lora_A, a), (layer.lora_B, b)):
                if wanted[NAME].weight.shape != given.shape:
                    raise UserError(
                        f"the checkpoint's adapter of {name} has the rank {a.shape[0]}, and train.lora.rank "
                        "is another; move it away to train from the base."
                    )
                wanted[NAME].weight.copy_(given)
