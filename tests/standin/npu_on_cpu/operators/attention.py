"""Attention, for training and for inference.

Both operators compute as the design of CANN's FlashAttentionScore describes for the 910B
(ops-transformer, attention/flash_attention_score/docs): products of the matrix unit take the
input's type and accumulate in float32; softmax is in float32, without its division; its numerators
are rounded to the input's type before the second product, and the division comes last, in float32.
Not copied is the partition into blocks of up to 1024 keys, each with a maximum of its own. The
backward pass is torch's own of the same steps.
"""

from collections.abc import Sequence

import torch


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """Attention of (batch, heads, tokens, size) tensors; `mask` is true where it must not look.

    key and value may have fewer heads, which divide the query's (grouped queries).
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    scores = query.float() @ key.float().transpose(-1, -2) * scale
    if mask is not None:
        scores = scores.masked_fill(mask.bool(), torch.finfo(scores.dtype).min)
    numerators = (scores - scores.detach().amax(-1, keepdim=True)).exp()
    total = numerators.sum(-1, keepdim=True)
    summed = numerators.to(query.dtype).float() @ value.float()
    return (summed / total).to(query.dtype)


def _bnsd(tensor: torch.Tensor, layout: str, size: int) -> torch.Tensor:
    """A tensor of some layout, heads of `size`, as (batch, heads, tokens, size)."""
    if layout == "BNSD":
        return tensor
    if layout == "BSND":
        return tensor.transpose(1, 2)
    batch_first = tensor if layout == "BSH" else tensor.transpose(0, 1)
    return batch_first.unflatten(-1, (-1, size)).transpose(1, 2)


def _back(tensor: torch.Tensor, layout: str) -> torch.Tensor:
    """Undo `_bnsd`."""
    if layout == "BNSD":
        return tensor
    tensor = tensor.transpose(1, 2)
    if layout != "BSND":
        tensor = tensor.flatten(2)
    return (tensor.transpose(0, 1) if layout == "SBH" else tensor).contiguous()


def _in_layout(query, key, value, heads, layout, scale, mask):
    if layout not in ("BNSD", "BSND", "BSH", "SBH"):
        raise NotImplementedError(f"stand-in: attention with input_layout {layout!r}")
    size = query.shape[-1] if layout in ("BNSD", "BSND") else query.shape[-1] // heads
    q, k, v = (_bnsd(tensor, layout, size) for tensor in (query, key, value))
    return _back(attend(q, k, v, scale, mask), layout)


def _packed(query, key, value, query_ends, key_ends, scale, mask):
    """Sequences one after another, (tokens, heads, size), each attending to itself only."""
    if query_ends is None or key_ends is None or int(query_ends[-1]) != query.shape[0]:
        raise ValueError(
            f"stand-in: actual_seq_qlen {query_ends} doesn't end at the query's {query.shape[0]} tokens"
        )
    parts, q0, k0 = [], 0, 0
    for q1, k1 in zip(map(int, query_ends), map(int, key_ends), strict=True):
        q, k, v = (
            tensor.transpose(0, 1).unsqueeze(0)
            for tensor in (query[q0:q1], key[k0:k1], value[k0:k1])
        )
        here = None if mask is None else mask[: q1 - q0, : k1 - k0]
        parts.append(attend(q, k, v, scale, here)[0].transpose(0, 1))
        q0, k0 = q1, k1
    return torch.cat(parts)


def npu_fusion_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    head_num: int,
    input_layout: str,
    pse: torch.Tensor | None = None,
    padding_mask: torch.Tensor | None = None,
    atten_mask: torch.Tensor | None = None,
    scale: float = 1.0,
    keep_prob: float = 1.0,
    pre_tockens: int = 2147483647,
    next_tockens: int = 2147483647,
    inner_precise: int = 0,
    prefix: Sequence[int] | None = None,
    actual_seq_qlen: Sequence[int] | None = None,
    actual_seq_kvlen: Sequence[int] | None = None,
    sparse_mode: int = 0,
    gen_mask_parallel: bool = True,
    sync: bool = False,
) -> tuple:
    """Attention in training; the first of the seven results is the output, in `query`'s layout.

    input_layout: BNSD, BSND, BSH, SBH, or TND for sequences that end at `actual_seq_qlen`.
    atten_mask: true (1) where a query must not look. The other results, which only CANN's own
    backward operator needs, are None and 0. `pre_tockens` and `next_tockens` are, as in
    the operator with sparse mode 0, no mask by themselves: the mask is `atten_mask`.
    """
    refused = {
        "pse": pse is not None,
        "padding_mask": padding_mask is not None,
        "prefix": prefix is not None,
        "keep_prob below 1 (dropout)": float(keep_prob) != 1.0,
        "a sparse_mode but 0": sparse_mode != 0,
    }
    for what, asked in refused.items():
        if asked:
            raise NotImplementedError(f"stand-in: npu_fusion_attention with {what}")
    if input_layout == "TND":
        output = _packed(query, key, value, actual_seq_qlen, actual_seq_kvlen, scale, atten_mask)
    else:
        output = _in_layout(query, key, value, head_num, input_layout, scale, atten_mask)
    return output, None, None, None, 0, 0, 0


def npu_fused_infer_attention_score(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    pse_shift: torch.Tensor | None = None,
    atten_mask: torch.Tensor | None = None,
    actual_seq_lengths: Sequence[int] | None = None,
    actual_seq_lengths_kv: Sequence[int] | None = None,
    num_heads: int = 1,
    scale: float = 1.0,
    input_layout: str = "BSH",
    num_key_value_heads: int = 0,
    **others,
) -> tuple[torch.Tensor, None]:
    """Attention in inference, with the keys and values of earlier tokens among `key`, `value`."""
    if pse_shift is not None or others:
        raise NotImplementedError(
            f"stand-in: npu_fused_infer_attention_score with {sorted(others) or 'pse_shift'}"
        )
    for name, lengths, tokens in (
        ("actual_seq_lengths", actual_seq_lengths, _tokens(query, input_layout)),
        ("actual_seq_lengths_kv", actual_seq_lengths_kv, _tokens(key, input_layout)),
    ):
        if lengths is not None and any(int(length) != tokens for length in lengths):
            raise NotImplementedError(f"stand-in: {name} {lengths} shorter than {tokens} tokens")
    return _in_layout(query, key, value, num_heads, input_layout, scale, atten_mask), None


def _tokens(tensor: torch.Tensor, layout: str) -> int:
    return tensor.shape[layout.index("S")]


def npu_scaled_masked_softmax(
    x: torch.Tensor, mask: torch.Tensor, scale: float = 1.0, fixed_triu_mask: bool = False
) -> torch.Tensor:
    """Softmax of `x * scale` where `mask` is not true, in float32, rounded once.

    fixed_triu_mask: a causal mask is made instead of using `mask`. Masked scores become -10000, as
    documented, not minus infinity. Reached only without `--use-flash-attn`.
    """
    scores = x.float() * scale
    if fixed_triu_mask:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(diagonal=1)
    return scores.masked_fill(mask.bool(), -10000.0).softmax(-1).to(x.dtype)
