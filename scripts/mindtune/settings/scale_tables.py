"""The tables of docs/scaling.md, which are made from estimates of configurations."""

from collections.abc import Mapping

from mindtune.estimates.memory import step_of, training_memory
from mindtune.estimates.parameters import count_parameters
from mindtune.estimates.scale import estimate, in_units
from mindtune.models.shape import ModelShape
from mindtune.settings import SHARED, Configuration, load

LORA = {
    "rank": 16, "alpha": 32, "dropout": 0.0,
    "target_modules": ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"],
}  # fmt: skip
# The `hf` engine with one conversation of 1,024 tokens at a time, and with a packed pass.
PACKED = {"tokens_per_pass": 4096}
WAYS = (
    ("1 x 1,024", {}, "none"),
    ("packed, 4,096", PACKED, "none"),
    ("packed, 4,096", PACKED, "full"),
)


def memory_table(shapes: Mapping[str, ModelShape]) -> str:
    """A table of the memory of a device with the `hf` engine in bf16, in Markdown, for docs/scaling.md."""
    rows = [
        "| model | trained | tokens | recompute | weights | gradients | optimizer | activations | logits | in all |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, shape in shapes.items():
        parameters = count_parameters(shape)
        for trained, lora in (("all of the language model", None), ("LoRA, rank 16", LORA)):
            for tokens, hf, recompute in WAYS:
                train = {"micro_batch_size": 1, "seq_length": 1024, "lora": lora}
                settings = load({"hf": hf | {"recompute": recompute}, "train": train}).typed()
                step = step_of(settings)
                need = training_memory(shape, parameters.all, settings.train, "bf16", step)
                parts = (
                    need.weights, need.gradients, need.optimizer, need.activations, need.logits, need.all,
                )  # fmt: skip
                rows.append(
                    f"| {name} | {trained} | {tokens} | {recompute} | "
                    f"{' | '.join(map(in_units, parts))} |"
                )
    return "\n".join(rows)


def table(
    shapes: Mapping[str, ModelShape], configuration: Configuration, numbers: tuple[int, ...]
) -> str:
    """A table of sizes x numbers of experiments, in Markdown, for docs/scaling.md."""
    rows = [
        "| model | experiments | parameters | trained | model | one checkpoint | disk, all | on devices | jobs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, shape in shapes.items():
        parameters = count_parameters(shape)
        for number in numbers:
            first = configuration.typed()
            many = Configuration({SHARED: first, **{str(n): first for n in range(number)}})
            need = estimate(many, parameters)
            rows.append(
                f"| {name} | {number} | {parameters.all / 1e9:.2f}e9 "
                f"| {need.trained / 1e9:.2f}e9 | {in_units(need.model)} "
                f"| {in_units(need.checkpoint)} | {in_units(need.disk)} "
                f"| {in_units(need.device)} | {need.jobs} |"
            )
    return "\n".join(rows)
