"""All samples of a global batch through the model together, with the numbers of micro batches in turn.

Megatron's loss of an iteration is the mean over its micro batches of each one's mean over answer
tokens (megatron/training/training.py, `train_step`). With every answer token weighted by

    1 / (answer tokens of its micro batch x micro batches of the global batch)

the sum over all tokens is that very number, however the samples are grouped. So they are packed
without padding, one after another in a row of at most `tokens_per_pass` tokens: a *pass*. Each
sample is a segment of the row, has positions of its own, and attends to itself only; logits are
computed where an answer token is predicted and nowhere else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from mindtune.engines.hf.levels import levels, side_by_side
from mindtune.engines.hf.processing import IGNORE_INDEX
from mindtune.engines.hf.segments import Segments, SegmentsByBounds
from mindtune.engines.hf.shown import Kept, Shown, known


@dataclass(frozen=True)
class Pass:
    """Samples that go through the model together.

    input_ids: (tokens,). position_ids: (3, tokens), temporal, height and width, each
    sample's from 0. lengths: tokens of each sample. predicting: (answers,), the places in the row
    from which an answer token is predicted; targets: (answers,), those tokens; weights: (answers,),
    float32. Of the pictures: pixel_values (patches, values) and grid_thw (pictures, 3); or, where they
    are kept, features (merged patches, hidden x levels, see `levels`); or, where some are not yet computed, shown, the
    pictures one by one (`mindtune.engines.hf.features`).
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    lengths: tuple[int, ...]
    predicting: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    pixel_values: torch.Tensor | None = None
    grid_thw: torch.Tensor | None = None
    features: torch.Tensor | None = None
    shown: tuple = ()

    def pin_memory(self) -> "Pass":
        """The same in pinned memory; torch's data loader calls this."""
        return self._mapped(lambda part: part.pin_memory())

    def to(self, device: torch.device) -> "Pass":
        return self._mapped(lambda part: part.to(device, non_blocking=True))

    def _mapped(self, change) -> "Pass":
        fields = {
            name: change(value) if isinstance(value, torch.Tensor) else value
            for name, value in vars(self).items()
        }
        return Pass(**fields | {"shown": tuple(map(change, self.shown))})


class Packer:
    """Collates the samples of a global batch into passes.

    micro_batch_size: samples whose mean Megatron takes first. tokens_per_pass: the most tokens of
    a pass; a sample that is longer goes alone. image_token_id, merge_size: of the model. replicas: how
    many copies of the model share the global batch; the samples are the part of one.
    """

    def __init__(
        self,
        micro_batch_size: int,
        tokens_per_pass: int,
        image_token_id: int,
        merge_size: int,
        replicas: int = 1,
    ) -> None:
        self.micro_batch_size = micro_batch_size
        self.tokens_per_pass = tokens_per_pass
        self.image_token_id = image_token_id
        self.merge_size = merge_size
        self.replicas = replicas

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """`passes`, and `samples`, a tensor (samples,) by which the Trainer counts them."""
        weights = token_weights(
            [answer_tokens(sample["labels"]) for sample in samples],
            self.micro_batch_size,
            self.replicas,
        )
        lengths = [len(sample["input_ids"]) for sample in samples]
        return {
            "samples": torch.tensor(lengths),
            "passes": [
                self.packed(samples[part], weights[part])
                for part in passes(lengths, self.tokens_per_pass)
            ],
        }

    def packed(self, samples: Sequence[dict[str, Any]], weights: Sequence[float]) -> Pass:
        """One pass of some samples, each with the weight of its answer tokens."""
        ids, positions, predicting, targets, weighed, pictures = [], [], [], [], [], []
        begin = 0
        for sample, weight in zip(samples, weights, strict=True):
            own = torch.tensor(sample["input_ids"])
            labels = torch.tensor(sample["labels"])
            places = (labels[1:] != IGNORE_INDEX).nonzero()[:, 0]
            ids.append(own)
            positions.append(self.positions(own, sample["pictures"]))
            predicting.append(places + begin)
            targets.append(labels[1:][places])
            weighed.append(torch.full((len(places),), weight, dtype=torch.float32))
            pictures += sample["pictures"]
            begin += len(own)
        return Pass(
            input_ids=torch.cat(ids),
            position_ids=torch.cat(positions, dim=1),
            lengths=tuple(map(len, ids)),
            predicting=torch.cat(predicting),
            targets=torch.cat(targets),
            weights=torch.cat(weighed),
            **of_pictures(pictures),
        )

    def positions(self, ids: torch.Tensor, pictures: Sequence) -> torch.Tensor:
        """(3, tokens): what the `get_rope_index` of transformers' model gives a sample alone.

        Text counts on in all three rows; a picture's tokens have the row and column of their
        merged patch, from the place where it begins, and text resumes after its longer side.
        """
        if not pictures:
            return torch.arange(len(ids)).expand(3, -1)
        is_image = (ids == self.image_token_id).tolist()
        parts, at, place, left = [], 0, 0, list(pictures)
        while place < len(ids):
            if is_image[place]:
                time, height, width = (int(side) for side in left.pop(0).grid_thw[0])
                height, width = height // self.merge_size, width // self.merge_size
                grid = torch.cartesian_prod(
                    torch.arange(time), torch.arange(height), torch.arange(width)
                )
                parts.append(grid.T + at)
                at += max(height, width)
                place += len(grid)
            else:
                end = is_image.index(True, place) if left and True in is_image[place:] else len(ids)
                parts.append(torch.arange(at, at + end - place).expand(3, -1))
                at += end - place
                place = end
        return torch.cat(parts, dim=1)


def of_pictures(pictures: Sequence) -> dict[str, Any]:
    """The fields of a pass that its pictures make."""
    if not pictures:
        return {}
    if isinstance(pictures[0], Shown):
        found = known(pictures)
        return {"shown": tuple(pictures)} if found is None else {"features": found}
    return {
        "pixel_values": torch.cat([picture.pixel_values for picture in pictures]),
        "grid_thw": torch.cat([picture.grid_thw for picture in pictures]),
    }


def answer_tokens(labels: Sequence[int]) -> int:
    """How many tokens are predicted: all labels but the first, which nothing comes before."""
    return sum(label != IGNORE_INDEX for label in labels[1:])


def token_weights(answers: Sequence[int], micro_batch_size: int, replicas: int = 1) -> list[float]:
    """The weight of each sample's answer tokens; NaN in a micro batch without any, as its mean is.

    answers: answer tokens of the samples of one of `replicas`, which have as many micro batches each.
    """
    micro_batches = [
        answers[start : start + micro_batch_size]
        for start in range(0, len(answers), micro_batch_size)
    ]
    weights = []
    for batch in micro_batches:
        total = sum(batch) * len(micro_batches) * replicas
        weights += [1 / total if total else float("nan")] * len(batch)
    return weights


def passes(lengths: Sequence[int], tokens_per_pass: int) -> Iterator[slice]:
    """Consecutive samples whose tokens fit in a pass, in their order."""
    start, tokens = 0, 0
    for place, length in enumerate(lengths):
        if place > start and tokens + length > tokens_per_pass:
            yield slice(start, place)
            start, tokens = place, 0
        tokens += length
    if start < len(lengths):
        yield slice(start, len(lengths))


def packed_loss(model: torch.nn.Module, part: Pass, kept: Kept | None = None) -> torch.Tensor:
    """The weighted sum over a pass's answer tokens; the passes' sums make Megatron's loss.

    kept: what gives the features of pictures that are not in the pass as pixels.
    """
    inner = model.model
    embedded = inner.get_input_embeddings()(part.input_ids)[None]
    pictures = None
    if part.shown:
        pictures = kept.merged(torch.cat([kept.of(shown) for shown in part.shown]))
    elif part.features is not None:
        pictures = kept.merged(part.features)
    elif part.pixel_values is not None:
        pictures = picture_features(inner, part.pixel_values, part.grid_thw)
    deeper = {}
    if pictures is not None:
        first, *added = levels(model, pictures.to(embedded.dtype))
        marks = (part.input_ids == model.config.image_token_id)[None]
        embedded = embedded.masked_scatter(marks[..., None], first)
        if added:
            deeper = {"visual_pos_masks": marks, "deepstack_visual_embeds": added}
    hidden = inner.language_model(
        inputs_embeds=embedded,
        position_ids=part.position_ids[:, None],
        use_cache=False,
        segments=Segments.of(part.lengths, causal=True, device=embedded.device),
        **deeper,
    ).last_hidden_state[0]
    logits = model.lm_head(hidden[part.predicting]).float()
    losses = cross_entropy(logits, part.targets, reduction="none")
    return (losses * part.weights).sum()


def picture_features(
    inner: torch.nn.Module, pixel_values: torch.Tensor, grid_thw: torch.Tensor
) -> torch.Tensor:
    """(merged patches, hidden x levels): what all pictures are to the decoder, in order."""
    output = inner.visual(
        pixel_values.to(inner.visual.dtype), grid_thw=grid_thw, segments=SegmentsByBounds()
    )
    return side_by_side(output)
