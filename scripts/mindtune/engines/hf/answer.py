"""Answering prompts with a Hugging Face model: greedy, in batches, one load."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig

from mindtune.data.prompts import pictures_of, text_of
from mindtune.engines.chat import warn_of_other_template
from mindtune.engines.cutting import PictureTokens, tokens_of_all
from mindtune.engines.hf.dataset import picture_inputs
from mindtune.engines.hf.device import DTYPES, open_device
from mindtune.engines.hf.grouping import groups
from mindtune.engines.hf.levels import as_output, side_by_side
from mindtune.engines.hf.loading import Pictures, pictures_ahead
from mindtune.engines.hf.model import load_model
from mindtune.engines.hf.processing import Picture, Processor
from mindtune.engines.journal import Batch, Journal, in_order, versions
from mindtune.engines.requests import AnswerJob, answered
from mindtune.files import read_json_lines
from mindtune.progress import Progress

if TYPE_CHECKING:
    from mindtune.settings.sections.hf import Hf


def answer(job: "AnswerJob[Hf]") -> None:
    """Write an answer for each prompt, in the order of the prompts; what an interrupted answering
    has answered is not asked again."""
    device = open_device(job.machine)
    warn_of_other_template(job.hf_dir)
    prompts = read_json_lines(job.prompts)
    journal = Journal.of(job, prompts, engine="hf", versions=versions("torch", "transformers"))
    if not journal.is_whole:
        processor = Processor(job.hf_dir, job.processor.image_resolution)
        model = load_model(job.model_dir, DTYPES[job.machine.precision]).to(device).eval()
        together = by_budget if job.answer.tokens_per_batch else in_file_order
        with Progress("answering", "prompts", len(prompts), done=len(journal.lines)) as shown:
            for numbers, lines in together(job, model, processor, prompts, journal.missing):
                journal.add(numbers, lines)
                shown.advance(len(numbers))
    journal.finish(job.answers)


Answered = Iterator[tuple[Batch, Sequence[dict]]]  # prompts' numbers, and their lines
Chosen = Callable[[Sequence[Batch]], Sequence[Batch]]  # of all batches, those to answer


def in_file_order(
    job: "AnswerJob[Hf]", model, processor: Processor, prompts: Sequence[dict], chosen: Chosen
) -> Answered:
    """Answer `answer.batch_size` prompts at once, as they come."""
    for numbers in chosen(in_order(len(prompts), job.answer.batch_size)):
        part = [prompts[number] for number in numbers]
        lines = answer_batch(model, processor, part, job.images, job.answer.max_new_tokens)
        yield numbers, list(lines)


def by_budget(
    job: "AnswerJob[Hf]", model, processor: Processor, prompts: Sequence[dict], chosen: Chosen
) -> Answered:
    """Answer prompts of like length at once, up to `answer.tokens_per_batch` tokens."""
    shown = [tuple(pictures_of(prompt)) for prompt in prompts]
    names = list(dict.fromkeys(name for pictures in shown for name in pictures))
    measure = PictureTokens.of_model(job.hf_dir, job.processor.image_resolution)
    tokens = tokens_of_all(job.images, names, measure) if names else {}
    lengths = [
        len(
            processor.encode_prompt(
                text_of(prompt),
                [torch.tensor(tokens[name] * processor.merge_length) for name in pictures],
                prompt.get("system"),
            )
        )
        for prompt, pictures in zip(prompts, shown, strict=True)
    ]
    found = chosen(groups(lengths, shown, job.answer.tokens_per_batch, job.answer.batch_size))
    every = [name for numbers in found for number in numbers for name in shown[number]]
    pictures = Pictures(job.images, list(dict.fromkeys(every)), processor)
    seen = Seen(model, pictures_ahead(pictures, job.machine.threads), Counter(every))
    for numbers in found:
        part = [prompts[number] for number in numbers]
        lines = answer_group(model, processor, part, seen, job.answer.max_new_tokens)
        yield numbers, list(lines)


class Seen:
    """What the vision tower makes of pictures: computed once, one picture at a time, and kept as
    long as there are questions about it, so that it is the same whatever is asked beside it.

    pictures: in the order in which they are first taken. left: how often each is still shown.
    """

    def __init__(self, model, pictures: Iterator[Picture], left: Counter) -> None:
        self.model, self.pictures, self.left = model, pictures, left
        self.kept: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def take(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """A picture's grid (1, 3), and what it is to the decoder (see `levels`)."""
        if name not in self.kept:
            picture = next(self.pictures)
            device = self.model.device
            output = self.model.get_image_features(
                picture.pixel_values.to(device), picture.grid_thw.to(device), return_dict=True
            )
            self.kept[name] = picture.grid_thw, side_by_side(output)
        found = self.kept[name]
        self.left[name] -= 1
        if not self.left[name]:
            del self.kept[name]
        return found


@torch.inference_mode()
def answer_group(
    model, processor: Processor, prompts: Sequence[dict], seen: Seen, max_new_tokens: int
) -> Iterator[dict]:
    """Answer some prompts at once, with pictures that have been seen."""
    begun = time.perf_counter()
    pictures = [[seen.take(name) for name in pictures_of(prompt)] for prompt in prompts]
    rows = [
        processor.encode_prompt(
            text_of(prompt), [grid[0] for grid, _ in shown], prompt.get("system")
        )
        for prompt, shown in zip(prompts, pictures, strict=True)
    ]
    ids, mask = padded(rows, processor.pad_id)
    inputs = {"input_ids": ids, "attention_mask": mask, **picture_inputs(ids, [], processor)}
    every = [picture for shown in pictures for picture in shown]
    given = {}
    if every:
        inputs["image_grid_thw"] = torch.cat([grid for grid, _ in every])
        given["mm_encoder_outputs"] = {"image": as_output(model, [found for _, found in every])}
    said = generated(model, processor, inputs, max_new_tokens, **given)
    yield from lines_of(prompts, said, processor, time.perf_counter() - begun)


@torch.inference_mode()
def answer_batch(
    model, processor: Processor, prompts: Sequence[dict], images: Path, max_new_tokens: int
) -> Iterator[dict]:
    """Answer some prompts at once."""
    begun = time.perf_counter()
    pictures = [
        [processor.picture(processor.open_image(images / name)) for name in pictures_of(prompt)]
        for prompt in prompts
    ]
    rows = [
        processor.encode_prompt(
            text_of(prompt), [picture.grid_thw[0] for picture in shown], prompt.get("system")
        )
        for prompt, shown in zip(prompts, pictures, strict=True)
    ]
    ids, mask = padded(rows, processor.pad_id)
    every = [picture for shown in pictures for picture in shown]
    inputs = {"input_ids": ids, "attention_mask": mask, **picture_inputs(ids, every, processor)}
    said = generated(model, processor, inputs, max_new_tokens)
    yield from lines_of(prompts, said, processor, time.perf_counter() - begun)


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask (prompts, length), padded on the left."""
    length = max(map(len, rows))
    ids = torch.full((len(rows), length), pad_id)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, length - len(row) :] = torch.tensor(row)
        mask[number, length - len(row) :] = 1
    return ids, mask


def generated(model, processor: Processor, inputs: dict, max_new_tokens: int, **given):
    """Token ids that the model says to each prompt, on the CPU.

    inputs: tensors, which are brought to the model's device. given: what else `generate` takes.
    """
    length = inputs["input_ids"].shape[1]
    return model.generate(
        **{name: tensor.to(model.device) for name, tensor in inputs.items()},
        **given,
        generation_config=GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=[processor.end_id, processor.pad_id],
            pad_token_id=processor.pad_id,
        ),
    )[:, length:].cpu()


def lines_of(
    prompts: Sequence[dict], said: torch.Tensor, processor: Processor, seconds: float
) -> Iterator[dict]:
    """The lines of prompts answered together. said: (prompts, tokens). seconds: of all of them."""
    stops = [processor.end_id, processor.pad_id]
    for prompt, row in zip(prompts, said.tolist(), strict=True):
        end = next((n for n, token in enumerate(row) if token in stops), None)
        own = row if end is None else row[:end]
        yield answered(
            prompt,
            answer=processor.decode_answer(own),
            tokens=len(own),
            cut=end is None,
            seconds=seconds / len(prompts),
        )
