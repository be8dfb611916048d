"""A model that answers questions about a picture, one by one, as the `hf` engine does."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from mindtune.comparison.text import boxes
from mindtune.data.conversation import IMAGE_MARK
from mindtune.data.prompts import FRONT
from mindtune.data.shrinking import read_shrunk
from mindtune.divergence import model_divergence
from mindtune.engines.hf.answer import generated, lines_of, padded, picture_inputs
from mindtune.engines.hf.device import DTYPES, open_device
from mindtune.engines.hf.model import load_model
from mindtune.engines.hf.processing import Processor
from mindtune.engines.requests import typed
from mindtune.errors import UserError
from mindtune.models.box_text import corners, in_thousandths
from mindtune.models.boxes import boxes_of
from mindtune.models.conversation import SPECIAL_TOKEN, without_marks

COLOURS = ("#d1242f", "#0969da", "#1a7f37", "#9a6700")


@dataclass(frozen=True)
class Said:
    """An answer: its text, how many tokens it has, whether it was cut, and what it took.

    placed: the text with boxes as tables have them; None where it has no others.
    """

    text: str
    tokens: int
    cut: bool
    seconds: float
    placed: str | None = None

    def note(self) -> str:
        return f"{self.tokens} tokens{', cut' if self.cut else ''}, {self.seconds:.1f} s"


class Speaker:
    """
    Parameters
    ----------
    directory: a Hugging Face model, such as results/baseline/hf.
    device, precision, threads: as in the section `hf`. image_resolution: as in `processor`.

    Raises
    ------
    UserError: it is no such model, or can't be loaded; or there is no such device.
    """

    def __init__(
        self,
        directory: Path,
        device: str = "cpu",
        precision: str = "fp32",
        threads: int = 1,
        image_resolution: int = 512 * 512,
    ) -> None:
        check_model(directory)
        self.name = str(directory)
        where = open_device(typed("hf", {"device": device, "threads": threads}))
        self.processor = Processor(directory, image_resolution)
        self.boxes = boxes_of(directory)
        self.model = load_model(directory, DTYPES[precision]).to(where).eval()

    @torch.inference_mode()
    def answer(self, picture: Path, question: str, max_new_tokens: int) -> Said:
        """Answer a question, by itself: nothing of earlier ones is among what the model reads. The text is without
        marks of objects and boxes, as in tables.

        Raises
        ------
        UserError: the picture can't be used, or the question can't be asked.
        """
        check_question(question)
        begun = time.perf_counter()
        processor = self.processor
        shown = processor.picture(processor.open_image(picture))
        row = processor.encode_prompt(FRONT + question, [shown.grid_thw[0]])
        ids, mask = padded([row], processor.pad_id)
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            **picture_inputs(ids, [shown], processor),
        }
        said = generated(self.model, processor, inputs, max_new_tokens)
        (line,) = lines_of([{}], said, processor, time.perf_counter() - begun)
        text = without_marks(line["answer"]).strip()
        _, down, across = (shown.grid_thw[0] * processor.image_processor.patch_size).tolist()
        placed = in_thousandths(text, self.boxes.out_of((across, down)))
        return Said(text, line["tokens"], line["cut"], line["seconds"], placed)


def check_model(directory: Path) -> None:
    """
    Raises
    ------
    UserError: it is no directory of a Hugging Face model.
    """
    if not directory.is_dir():
        raise UserError(
            f"{directory} is no directory; give that of a Hugging Face model, such as results/baseline/hf."
        )
    if diverged := model_divergence(directory):
        raise UserError(
            f"{directory} has no model: its training diverged at iteration {diverged['iteration']}; "
            "give another one."
        )
    if not (directory / "config.json").is_file():
        adapter = (directory / "adapter_config.json").is_file()
        raise UserError(
            f"{directory} has no config.json"
            + (", but an adapter; give the model that it was merged into" if adapter else "")
            + (
                ", such as results/EXPERIMENT/merged (`snakemake --cores 1` and that path makes it)."
                if adapter
                else "; give the directory of a Hugging Face model, such as results/baseline/hf."
            )
        )


def check_question(question: str) -> None:
    """
    Raises
    ------
    UserError: it is blank, or holds what the model reads as the frame of a conversation.
    """
    if not question.strip():
        raise UserError("the question is blank; write one.")
    found = SPECIAL_TOKEN.search(question)
    if found or IMAGE_MARK in question:
        raise UserError(
            f"the question holds {found[0] if found else IMAGE_MARK}, which the model reads as the frame "
            "of a conversation or a picture; write it in another way."
        )


def drawn(picture: Path, image_resolution: int, answers: Sequence[str]) -> Image.Image:
    """The picture as the models see it, with the boxes of each answer, in thousandths, in a colour of its own.

    Raises
    ------
    UserError: it can't be used.
    """
    shown = read_shrunk(picture, image_resolution)
    pen = ImageDraw.Draw(shown)
    width = max(2, round(max(shown.size) / 200))
    for number, answer in enumerate(answers):
        for box in boxes(answer):
            pen.rectangle(
                corners(box, shown.size), outline=COLOURS[number % len(COLOURS)], width=width
            )
    return shown
