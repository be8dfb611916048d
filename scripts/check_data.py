"""Look at all data as training will: decode each picture, count each conversation's tokens.

train.json, held_out.json, conversion.json, train2017/, model -> check.json, check.html
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mindtune.data.check import Encode, Seen, look_at_all, summarize
from mindtune.data.check_page import contact_sheet, page, verdict
from mindtune.data.json_list import read_records
from mindtune.data.mllm import forms_of, read_mllm, remarks
from mindtune.data.prompts import shortfall
from mindtune.data.shrinking import shrink
from mindtune.engines.hf.processing import Processor
from mindtune.files import read_json, write_json, writing
from mindtune.glue.script_runner import run, typed
from mindtune.progress import progress
from PIL import Image

log = logging.getLogger("mindtune")
UNCUT = 1 << 40


def counter(processor: Processor) -> Encode:
    """How an engine's processor counts tokens. A picture's patches depend on its size alone."""
    grids: dict[tuple[int, int], torch.Tensor] = {}

    def grid(picture: Seen) -> torch.Tensor:
        size = picture.width, picture.height
        if size not in grids:
            blank = shrink(Image.new("RGB", size), processor.image_resolution)
            grids[size] = processor.picture(blank).grid_thw[0]
        return grids[size]

    def encode(record: Mapping, pictures: Sequence[Seen]) -> int:
        ids, _ = processor.encode_conversation(
            record["messages"], [grid(picture) for picture in pictures], UNCUT
        )
        return len(ids)

    return encode


def main(snakemake) -> None:
    images = Path(snakemake.input.images)
    processor = typed("processor", snakemake.params.processor)
    prompts = typed("prompts", snakemake.params.prompts)
    files = {name: Path(snakemake.input[name]) for name in ("train", "held_out")}
    names = dict.fromkeys(
        name
        for path in files.values()
        for record in read_records(path)
        for name in record["images"]
    )
    looked = look_at_all(images, names, snakemake.threads, processor.image_resolution)
    seen = {
        picture.name: picture for picture in progress(looked, "decoding", "pictures", len(names))
    }
    encode = counter(Processor(snakemake.input.hf, processor.image_resolution))
    parts = {
        part: progress(read_records(path), f"tokenizing {part}", "records")
        for part, path in files.items()
    }
    conversion = read_json(snakemake.input.report)
    found = remarks(conversion)
    if less := shortfall(read_mllm(files["held_out"]), prompts.held_out_questions, prompts.turns):
        found.append(less)
    forms = forms_of(conversion)
    summary = summarize(parts, seen, encode, snakemake.params.seq_length, found, forms)
    write_json(snakemake.output.summary, summary)
    with writing(snakemake.output.page) as handle:
        handle.write(page(summary, seen, contact_sheet(images, seen)))
    log.info("%s", verdict(summary))


if "snakemake" in globals():
    run(snakemake, main)  # noqa: F821
