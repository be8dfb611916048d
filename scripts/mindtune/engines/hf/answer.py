"""Answering prompts with a Hugging Face model: greedy, in batches, one load."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import GenerationConfig

from mindtune.data.prompts import pictures_of, text_of
from mindtune.engines.chat import warn_of_other_template
from mindtune.engines.hf.dataset import picture_inputs
from mindtune.engines.hf.device import DTYPES, open_device
from mindtune.engines.hf.model import load_model
from mindtune.engines.hf.processing import Processor
from mindtune.engines.requests import AnswerJob, answered
from mindtune.files import read_json_lines, writing
from mindtune.progress import Progress

log = logging.getLogger(__name__)


def answer(job: AnswerJob) -> None:
    """Write an answer for each prompt, in the order of the prompts."""
    device = open_device(job.machine)
    warn_of_other_template(job.hf_dir)
    processor = Processor(job.hf_dir, job.processor["image_resolution"])
    model = load_model(job.model_dir, DTYPES[job.machine["precision"]]).to(device).eval()
    prompts = read_json_lines(job.prompts)
    size = job.answer["batch_size"]
    with writing(job.answers) as handle, Progress("answering", "prompts", len(prompts)) as shown:
        for start in range(0, len(prompts), size):
            part = prompts[start : start + size]
            for line in answer_batch(
                model, processor, part, job.images, job.answer["max_new_tokens"]
            ):
                handle.write(json.dumps(line, ensure_ascii=False) + "\n")
            shown.advance(len(part))


@torch.inference_mode()
def answer_batch(
    model, processor: Processor, prompts: Sequence[dict], images: Path, max_new_tokens: int
) -> Iterator[dict]:
    """Answer some prompts at once, padded on the left."""
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
    length = max(map(len, rows))
    ids = torch.full((len(rows), length), processor.pad_id)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, length - len(row) :] = torch.tensor(row)
        mask[number, length - len(row) :] = 1
    every = [picture for shown in pictures for picture in shown]
    inputs = {"input_ids": ids, "attention_mask": mask, **picture_inputs(ids, every, processor)}
    stops = [processor.end_id, processor.pad_id]
    output = model.generate(
        **{name: tensor.to(model.device) for name, tensor in inputs.items()},
        generation_config=GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=stops,
            pad_token_id=processor.pad_id,
        ),
    )[:, length:].cpu()
    seconds = (time.perf_counter() - begun) / len(prompts)
    for prompt, row in zip(prompts, output.tolist(), strict=True):
        end = next((n for n, token in enumerate(row) if token in stops), None)
        said = row if end is None else row[:end]
        yield answered(
            prompt,
            answer=processor.decode_answer(said),
            tokens=len(said),
            cut=end is None,
            seconds=seconds,
        )
