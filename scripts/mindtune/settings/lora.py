"""Conditions across keys for LoRA."""

from collections.abc import Iterator, Sequence

from mindtune.models.adapters import FUSED
from mindtune.settings.sections import Settings


def lora_problems(settings: Settings) -> Iterator[str]:
    """What can't work with `train.lora`, a sentence for each."""
    lora = settings.train.lora
    if lora is None:
        return
    words = lora.target_modules
    fused = [word for word in words if word.startswith(FUSED)]
    own = [word for word in words if not word.startswith(FUSED)]
    key = "train.lora.target_modules"
    if not words:
        yield f"{key} is empty; write at least 1 entry, or null for train.lora."
    if fused and own:
        yield (
            f"{key} has {fused[0]}, a name of MindSpeed-MM's, and {own[0]}, one of transformers'; write "
            "names of one kind."
        )
    if settings.engine != "mindspeed":
        return
    if own:
        yield (
            f"{key} has {own[0]}, which only the hf engine knows; write linear_qkv, linear_proj, "
            "linear_fc1 or linear_fc2."
        )
    if settings.mindspeed.converter != "mindtune":
        yield (
            f"mindspeed.converter is {settings.mindspeed.converter}, which can't read checkpoints of "
            "train.lora; write mindtune."
        )
    if (settings.answer.engine or settings.engine) == "mindspeed":
        yield (
            "train.lora leaves adapters in its checkpoints, from which the mindspeed engine can't answer; "
            "write `answer.engine: hf` (with hf.device: npu on Ascend)."
        )


def export_problems(experiments: Sequence[Settings]) -> Iterator[str]:
    """What can't work with `export`. experiments: the settings of all."""
    wanted = experiments and experiments[0].export == "adapter"
    if wanted and not any(settings.train.lora for settings in experiments):
        yield (
            "export is adapter, but no experiment trains one; write train.lora, or merged for export."
        )
