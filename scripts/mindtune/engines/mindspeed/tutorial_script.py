"""Answering as the tutorial does: inference_vlm.py, once for each prompt, read off its output.

It loads the model again for each question, and asks with the question before the
picture, in the form of the chat template in the model's directory; it is here as a cross-check of
the other way.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from mindtune.data.prompts import pictures_of
from mindtune.data.shrinking import read_shrunk
from mindtune.engines.mindspeed.watching import Watch
from mindtune.engines.tokenizer import encoder
from mindtune.errors import UserError
from mindtune.progress import Progress

# The last line before an answer: each rank prints it once its model is there.
READY = "warning: Both `max_new_tokens`"


def check_script_can_ask(prompts: list[dict], system: str) -> None:
    """
    system: the template's own text, under which the script asks.

    Raises
    ------
    UserError: a prompt has several pictures, or one that doesn't stand before the text, or
        another system text.
    """
    for prompt in prompts:
        if prompt.get("system", system) != system:
            raise UserError(
                f"mindspeed.inference is script, which asks under no system text but the template's, and "
                f"prompt {prompt['id']} has another; write pipeline."
            )
        if "image" not in prompt:
            raise UserError(
                f"mindspeed.inference is script, which asks about one picture only, but prompt "
                f"{prompt['id']} has {len(pictures_of(prompt))}, at places of their own in the text "
                f"({', '.join(pictures_of(prompt))}); write pipeline."
            )


def answer_by_script(
    asking, prompts: list[dict], keep: Callable[[dict], None], shown: Progress
) -> None:
    """A launch of inference_vlm.py for each prompt. Tokens are counted afterwards, in the text."""
    encode = encoder(asking.job.hf_dir)
    for number, prompt in enumerate(prompts):
        begun = time.perf_counter()
        text = _ask(asking, f"{number:04d}", prompt)
        tokens = len(encode(text))
        keep(
            {
                "answer": text,
                "tokens": tokens,
                "cut": tokens >= asking.job.answer.max_new_tokens,
                "seconds": time.perf_counter() - begun,
            }
        )
        shown.advance()


def _ask(asking, name: str, prompt: dict) -> str:
    picture = asking.run / name / "picture.png"
    picture.parent.mkdir()
    limit = asking.job.processor.image_resolution
    read_shrunk(asking.job.images / prompt["image"], limit).save(picture)
    launch = asking.launch(
        asking.machine.home / "inference_vlm.py",
        name,
        image_path=str(picture),
        prompts=prompt["prompt"],
    )
    listener = _Listener(load=asking.checkpoint)
    status = launch.run(listener.hear_answer, listener.hear)
    if status or not listener.loaded or listener.answer is None:
        cause = listener.faults.cause or "the framework's own words are at the end of the log."
        raise UserError(f"inference_vlm.py gave no answer to prompt {prompt['id']}: {cause}")
    return "\n".join(listener.answer).strip()


@dataclass(kw_only=True)
class _Listener(Watch):
    answer: list[str] | None = None

    def hear_answer(self, line: str) -> None:
        self.hear(line)
        if line.startswith(READY):
            self.answer = []
        elif self.answer is not None:
            self.answer.append(line)
