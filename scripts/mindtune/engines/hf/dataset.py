"""mllm-format records as a torch data set, and batches of them as the model takes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from mindtune.engines.hf.processing import IGNORE_INDEX, Picture, Processor
from mindtune.engines.hf.shown import Looking, Shown, known


class Conversations(Dataset):
    """Conversations of mllm format, each encoded when it is asked for.

    Parameters
    ----------
    records: mllm-format records. images: the directory in which their pictures are.
    seq_length: tokens after which a conversation is cut. features: of pictures, where they are kept.
    """

    def __init__(
        self,
        records: Sequence[dict],
        images: Path,
        processor: Processor,
        seq_length: int,
        features: Looking | None = None,
    ) -> None:
        self.records = records
        self.images = images
        self.processor = processor
        self.seq_length = seq_length
        self.features = features

    def __len__(self) -> int:
        return len(self.records)

    def look(self, path: Path) -> Picture | Shown:
        if self.features is not None:
            return self.features.look(path)
        return self.processor.picture(self.processor.open_image(path))

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.records[index]
        pictures = [self.look(self.images / name) for name in record["images"]]
        ids, labels = self.processor.encode_conversation(
            record["messages"], [picture.grid_thw[0] for picture in pictures], self.seq_length
        )
        return {"input_ids": ids, "labels": labels, "pictures": pictures}


class Collator:
    """Pads conversations on the right to a multiple of 8, as MindSpeed-MM does.

    Returns input_ids, attention_mask, labels and mm_token_type_ids, each (batch, length), and,
    when there is any picture, image_grid_thw (pictures, 3) and pixel_values (patches, values), or,
    where they are kept, features (merged patches, hidden x levels) of all pictures, or `pictures`, a list.
    """

    def __init__(self, processor: Processor) -> None:
        self.processor = processor

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        length = max(len(sample["input_ids"]) for sample in samples)
        length = (length + 7) // 8 * 8
        batch = {
            "input_ids": torch.full((len(samples), length), self.processor.pad_id),
            "labels": torch.full((len(samples), length), IGNORE_INDEX),
            "attention_mask": torch.zeros(len(samples), length, dtype=torch.long),
        }
        for row, sample in enumerate(samples):
            used = len(sample["input_ids"])
            batch["input_ids"][row, :used] = torch.tensor(sample["input_ids"])
            batch["labels"][row, :used] = torch.tensor(sample["labels"])
            batch["attention_mask"][row, :used] = 1
        pictures = [picture for sample in samples for picture in sample["pictures"]]
        if pictures and isinstance(pictures[0], Shown):
            batch |= picture_inputs(batch["input_ids"], [], self.processor)
            return batch | kept_inputs(pictures)
        return batch | picture_inputs(batch["input_ids"], pictures, self.processor)


def kept_inputs(pictures: Sequence[Shown]) -> dict:
    """What the trainer makes the model's inputs of, see `Collator`."""
    features = known(pictures)
    shown = {"pictures": pictures} if features is None else {"features": features}
    return {"image_grid_thw": torch.cat([picture.grid_thw for picture in pictures]), **shown}


def picture_inputs(ids: torch.Tensor, pictures: Sequence, processor: Processor) -> dict:
    """What the model takes beside token ids (batch, length) that stand for `pictures`."""
    inputs = {"mm_token_type_ids": (ids == processor.image_token_id).long()}
    if pictures:
        inputs["pixel_values"] = torch.cat([picture.pixel_values for picture in pictures])
        inputs["image_grid_thw"] = torch.cat([picture.grid_thw for picture in pictures])
    return inputs
