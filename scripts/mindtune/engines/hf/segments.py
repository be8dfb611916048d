"""Attention within the segments of a packed row, as an implementation that transformers calls.

transformers passes no mask to an implementation that it has no mask for, so nothing but
`Segments` keeps the segments apart; tests/unit/test_packing.py looks for leaks. The vision tower
calls an implementation once for all its pictures only if its name has `flash` in it (and otherwise
once per picture); its public setter refuses such a name for a function of one's own, the
attribute `_attn_implementation` does not (transformers 5.23).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "mindtune_segments_flash"
# torch's varlen kernels know these only.
VARLEN_TYPES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Segments:
    """The segments of a row, prepared once for all layers.

    bounds: int32 (segments + 1), where each begins and the last ends. longest: tokens. causal:
    whether a token sees only what comes before. groups: segments of like length, each as
    (segments, length) places in the row, where a causal one may be padded on the right with places
    of its last token: what stands before never sees those. gathered: for each place in the row,
    where it is in the groups laid out one after another.
    """

    bounds: torch.Tensor
    longest: int
    causal: bool
    groups: tuple[torch.Tensor, ...]
    gathered: torch.Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], *, causal: bool, device: torch.device) -> "Segments":
        begins = [0]
        for length in lengths:
            begins.append(begins[-1] + length)
        alike: dict[int, list[int]] = {}
        for number, length in enumerate(lengths):
            # Padding at most doubles a segment. Without causality it would be attended to.
            alike.setdefault(length.bit_length() if causal else length, []).append(number)
        groups, gathered, laid = [], torch.empty(begins[-1], dtype=torch.long), 0
        for members in alike.values():
            width = max(lengths[number] for number in members)
            places = torch.empty(len(members), width, dtype=torch.long)
            for row, number in enumerate(members):
                begin, length = begins[number], lengths[number]
                places[row] = torch.arange(begin, begin + width).clamp(max=begin + length - 1)
                gathered[begin : begin + length] = torch.arange(laid, laid + length)
                laid += width
            groups.append(places.to(device))
        return cls(
            torch.tensor(begins, dtype=torch.int32, device=device),
            max(lengths, default=0),
            causal,
            tuple(groups),
            gathered.to(device),
        )


class SegmentsByBounds:
    """The segments of a row in which some layers attend within others, such as windows of a picture.

    transformers gives each layer of a vision tower the bounds that are its own, as one tensor for all
    layers of a kind; what they come to is prepared when the first of these asks.
    """

    def __init__(self) -> None:
        self.known: list[tuple[torch.Tensor, Segments]] = []

    def of(self, bounds: torch.Tensor) -> Segments:
        """Without causality. bounds: int32 (segments + 1)."""
        for known, segments in self.known:
            if known is bounds:
                return segments
        lengths = bounds.diff().tolist()
        self.known.append((bounds, Segments.of(lengths, causal=False, device=bounds.device)))
        return self.known[-1][1]


def segment_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    segments: Segments | SegmentsByBounds,
    scaling: float,
    cu_seq_lens_q: torch.Tensor | None = None,
    **unused,
) -> tuple[torch.Tensor, None]:
    """Attention of one row: query (1, heads, tokens, size), key and value with fewer heads or as many.

    cu_seq_lens_q: the layer's bounds, of `SegmentsByBounds`.
    Returns (1, tokens, heads, size), and None for the weights, as transformers wants it.
    """
    if isinstance(segments, SegmentsByBounds):
        segments = segments.of(cu_seq_lens_q)
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if key.shape[1] != query.shape[1]:
        shared = query.shape[1] // key.shape[1]
        key, value = (tensor.repeat_interleave(shared, dim=1) for tensor in (key, value))
    if query.device.type == "cuda" and query.dtype in VARLEN_TYPES:
        return _varlen(query, key, value, segments, scaling)[None], None
    return _grouped(query, key, value, segments, scaling)[None], None


def _grouped(query, key, value, segments: Segments, scaling: float) -> torch.Tensor:
    """Through torch's ordinary attention, group by group: exact on every device."""
    size = query.shape[1:]
    laid = []
    for places in segments.groups:
        # index_select: its gradient adds rows, which is many times as fast as indexing's on a CPU
        parts = (
            tensor.index_select(0, places.flatten()).view(*places.shape, *size).transpose(1, 2)
            for tensor in (query, key, value)
        )
        seen = scaled_dot_product_attention(*parts, is_causal=segments.causal, scale=scaling)
        laid.append(seen.transpose(1, 2).reshape(-1, *size))
    return torch.cat(laid).index_select(0, segments.gathered)


def _varlen(query, key, value, segments: Segments, scaling: float) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn(
        query, key, value, segments.bounds, segments.bounds, segments.longest, segments.longest,
        scale=scaling, window_size=(-1, 0) if segments.causal else (-1, -1),
    )  # fmt: skip


def use_segments(model: torch.nn.Module) -> None:
    """Let a model attend by segments, in its language model and its vision tower."""
    AttentionInterface.register(NAME, segment_attention)
    for part in (model.model.language_model, model.model.visual):
        part.config._attn_implementation = NAME
