"""Where LoRA's adapters go: linear modules, by MindSpeed-MM's names or by transformers'.

MindSpeed-MM has query, key and value in one module (`linear_qkv`), and a gated feed-forward layer's two
inputs in another (`linear_fc1`). Its adapter is one for all of a module: one matrix A, and a B with the
rows of all parts. transformers has a module for each part, and peft an adapter with an A of its own for
each. The name chooses which of the two is meant.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mindtune.models.shape import ModelShape
from mindtune.models.tensors import Entry, Tensors, every_family, hf_shapes, tensors_of

if TYPE_CHECKING:
    from mindtune.settings.sections.train import Train

FUSED = "linear_"  # what MindSpeed-MM's names of linear modules begin with
_WEIGHT = ".weight"


@dataclass(frozen=True)
class Adapted:
    """A module with an adapter.

    entry: the Megatron tensor of its weight. hf: the published names of transformers' modules that it
    is made of; of all of `entry` where fused, otherwise one.
    """

    entry: Entry
    hf: tuple[str, ...]
    fused: bool

    @property
    def mm(self) -> str:
        """The Megatron name of the module."""
        return self.entry.mm.removesuffix(_WEIGHT)

    def sides(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
        """Outputs (of all parts) and inputs. shapes: of `hf_shapes`."""
        weights = [shapes[name + _WEIGHT] for name in self.hf]
        return sum(rows for rows, _ in weights), weights[0][1]


def adapted(shape: ModelShape, train: "Train") -> list[Adapted]:
    """The modules that get adapters, in the order of the model; none without `train.lora`.

    Parts of the model that `train` freezes get none.
    """
    if not train.lora:
        return []
    words, family = train.lora.target_modules, tensors_of(shape)
    entries = family.entries(shape.llm_layers, shape.vit_layers, output=not shape.tied)
    found = []
    for entry in entries:
        word = fused_word(entry.mm)
        if word is None or not family.is_trained(entry.hf[0], train):
            continue
        modules = tuple(name.removesuffix(_WEIGHT) for name in entry.hf)
        if word in words:
            found.append(Adapted(entry, modules, fused=True))
            continue
        found += [
            Adapted(entry, (module,), fused=False)
            for module in modules
            if own_word(module) in words
        ]
    return found


def adapter_parameters(shape: ModelShape, train: "Train") -> int:
    """How many parameters all adapters have."""
    shapes = hf_shapes(shape)
    sides = sum(sum(module.sides(shapes)) for module in adapted(shape, train))
    return train.lora.rank * sides if train.lora else 0


def fused_word(name: str) -> str | None:
    """What MindSpeed-MM calls the linear module of a Megatron tensor's name; None for other tensors."""
    word = name.removesuffix(_WEIGHT).rpartition(".")[2]
    return word if name.endswith(_WEIGHT) and word.startswith(FUSED) else None


def own_word(module: str) -> str:
    """What transformers calls a module: the last part of its name, or two where that is a number."""
    parts = module.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]


def words_of(family: Tensors) -> tuple[list[str], list[str]]:
    """MindSpeed-MM's names of a family's linear modules, and transformers'."""
    rules = [rule for rule in family.rules if fused_word(rule.mm)]
    ours = dict.fromkeys(fused_word(rule.mm) for rule in rules)
    theirs = dict.fromkeys(
        own_word(name.removesuffix(_WEIGHT)) for rule in rules for name in rule.hf
    )
    return list(ours), list(theirs)


def every_word() -> tuple[str, ...]:
    """All such names, of all families."""
    found = [words_of(family) for family in every_family()]
    ours, theirs = (dict.fromkeys(word for words in found for word in words[n]) for n in (0, 1))
    return tuple(dict.fromkeys((*ours, *theirs)))
