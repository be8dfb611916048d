"""Conditions across keys for LoRA."""

from collections.abc import Iterator, Mapping

from mindtune.models.adapters import FUSED


def lora_problems(settings: Mapping) -> Iterator[str]:
    """What can't work with `train.lora`, a sentence for each."""
    lora = settings["train"].get("lora")
    if lora is None:
        return
    words = lora["target_modules"]
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
    if settings["engine"] != "mindspeed":
        return
    if own:
        yield (
            f"{key} has {own[0]}, which only the hf engine knows; write linear_qkv, linear_proj, "
            "linear_fc1 or linear_fc2."
        )
    if settings["mindspeed"]["converter"] != "mindtune":
        yield (
            f"mindspeed.converter is {settings['mindspeed']['converter']}, which can't read checkpoints of "
            "train.lora; write mindtune."
        )
    if (settings["answer"].get("engine") or settings["engine"]) == "mindspeed":
        yield (
            "train.lora leaves adapters in its checkpoints, from which the mindspeed engine can't answer; "
            "write `answer.engine: hf` (with hf.device: npu on Ascend)."
        )


def export_problems(experiments: Mapping[str, Mapping]) -> Iterator[str]:
    """What can't work with `export`. experiments: name -> its settings."""
    found = list(experiments.values())
    wanted = found and found[0].get("export") == "adapter"
    if wanted and not any(settings["train"].get("lora") for settings in found):
        yield (
            "export is adapter, but no experiment trains one; write train.lora, or merged for export."
        )
