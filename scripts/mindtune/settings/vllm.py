"""Conditions that hold where vLLM answers."""

from collections.abc import Iterator

from mindtune.settings.sections import Settings

# Arguments of `vllm serve` that other keys give, and the key to write instead.
GIVEN = {
    "--model": "sources.model, or an experiment's tuned_model",
    "--tokenizer": "sources.model",
    "--dtype": "vllm.precision",
    "--max-model-len": "answer.max_new_tokens",
    "--limit-mm-per-prompt": "prompts",
    "--seed": "nothing, as answers are greedy",
    "--generation-config": "answer",
    "--enable-lora": "`export: adapter`",
    "--max-lora-rank": "`export: adapter`",
}


def vllm_problems(settings: Settings) -> Iterator[str]:
    """What can't work with vLLM, a sentence for each."""
    section = settings.vllm
    for argument in section.arguments:
        name = argument.split("=")[0].split()[0] if argument.strip() else argument
        name = name.replace("_", "-")
        if name in GIVEN:
            yield (f"vllm.arguments has {name}, which has a key of its own: write {GIVEN[name]}.")
