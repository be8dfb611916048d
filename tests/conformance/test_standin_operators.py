"""The stand-in's fused operators against plain references in float64."""

import math

import pytest
import torch
from torch.nn.functional import gelu, silu


@pytest.fixture(scope="module")
def operators(npu_on_cpu):
    from npu_on_cpu import operators

    return operators


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def dtype(request):
    torch.manual_seed(0)
    return request.param


def one_rounding(result, exact):
    """Whether a result is the exact value, rounded once (fp32: and computed in fp32)."""
    assert result.dtype in (torch.float32, torch.bfloat16)
    step = 2.0**-7 if result.dtype == torch.bfloat16 else 2.0**-20
    error = (result.double() - exact).abs()
    return bool((error <= step * 0.51 * exact.abs() + 1e-6).all())


def rows_of_softmax(query, key, value, scale, mask):
    """Attention by the book, in float64, a query at a time; mask true is hidden."""
    output = torch.zeros(*query.shape[:-1], value.shape[-1], dtype=torch.float64)
    share = query.shape[1] // key.shape[1]
    for batch in range(query.shape[0]):
        for head in range(query.shape[1]):
            for row in range(query.shape[2]):
                scores = key[batch, head // share].double() @ query[batch, head, row].double()
                scores = scores * scale
                if mask is not None:
                    scores = scores.masked_fill(mask[row], -math.inf)
                output[batch, head, row] = scores.softmax(0) @ value[batch, head // share].double()
    return output


def causal(tokens):
    return torch.ones(tokens, tokens, dtype=torch.bool).triu(1)


def some_heads(dtype, tokens=7, heads=4, kv_heads=2, size=8):
    def one(count):
        return torch.randn(2, count, tokens, size).to(dtype).requires_grad_()

    return one(heads), one(kv_heads), one(kv_heads)


def test_rms_norm(operators, dtype):
    x, gamma = torch.randn(5, 64).to(dtype), torch.randn(64).to(dtype)
    result, reciprocal = operators.npu_rms_norm(x, gamma, epsilon=1e-6)
    exact = 1 / (x.double().pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    assert one_rounding(result, x.double() * exact * gamma.double())
    assert reciprocal.dtype == torch.float32
    assert torch.allclose(reciprocal.double(), exact, rtol=1e-6)


def test_swiglu_and_geglu(operators, dtype):
    x = torch.randn(5, 64).to(dtype)
    a, b = x.double().chunk(2, -1)
    assert one_rounding(operators.npu_swiglu(x), silu(a) * b)
    for approximate, name in ((0, "none"), (1, "tanh")):
        product, gate = operators.npu_geglu(x, approximate=approximate)
        assert one_rounding(gate, gelu(b, approximate=name))
        assert one_rounding(product, a * gelu(b, approximate=name))
    product, _ = operators.npu_geglu(x, approximate=0, activate_left=True)
    assert one_rounding(product, gelu(a) * b)


def test_rotary_turns_pairs_by_their_angle(operators, dtype):
    angles = torch.randn(1, 1, 6, 4)
    x = torch.randn(2, 3, 6, 8).to(dtype)
    cos, sin = (torch.cat([f(angles)] * 2, -1).to(dtype) for f in (torch.cos, torch.sin))
    result = operators.npu_rotary_mul(x, cos, sin)
    a, b = x.double().chunk(2, -1)
    c, s = cos.double()[..., :4], sin.double()[..., :4]
    assert one_rounding(result, torch.cat([a * c - b * s, b * c + a * s], -1))
    with pytest.raises(NotImplementedError, match="rotary_mode 'interleave'"):
        operators.npu_rotary_mul(x, cos, sin, rotary_mode="interleave")


@pytest.mark.parametrize("layout", ["BNSD", "BSND", "BSH", "SBH"])
@pytest.mark.parametrize("hidden", [True, False], ids=["causal", "all"])
def test_attention_in_each_layout(operators, dtype, layout, hidden):
    q, k, v = (tensor.detach() for tensor in some_heads(dtype))
    mask = causal(7) if hidden else None
    exact = rows_of_softmax(q, k, v, 0.3, mask)

    def laid_out(tensor):
        if layout == "BNSD":
            return tensor
        tensor = tensor.transpose(1, 2)
        if layout != "BSND":
            tensor = tensor.flatten(2)
        return tensor.transpose(0, 1) if layout == "SBH" else tensor

    result = operators.npu_fusion_attention(
        laid_out(q), laid_out(k), laid_out(v), 4, layout, atten_mask=mask, scale=0.3
    )
    assert len(result) == 7
    # Numerators are rounded to bfloat16 too, as on the NPU.
    tolerance = 1e-6 if dtype == torch.float32 else 2.0**-7
    assert torch.allclose(result[0].double(), laid_out(exact), rtol=0, atol=tolerance)


def test_packed_sequences_do_not_see_one_another(operators, dtype):
    ends = (3, 10, 11)
    q, k, v = (torch.randn(11, 4, 8).to(dtype) for _ in range(3))
    result = operators.npu_fusion_attention(
        q, k, v, 4, "TND", scale=0.3, actual_seq_qlen=ends, actual_seq_kvlen=ends,
        atten_mask=causal(7),
    )[0]  # fmt: skip
    for first, last in zip((0, *ends), ends, strict=False):
        alone = operators.npu_fusion_attention(
            *(tensor[None, first:last] for tensor in (q, k, v)), 4, "BSND", scale=0.3,
            atten_mask=causal(last - first),
        )[0]  # fmt: skip
        assert torch.equal(result[first:last], alone[0])
    with pytest.raises(ValueError, match="doesn't end at the query's 11 tokens"):
        operators.npu_fusion_attention(
            q, k, v, 4, "TND", actual_seq_qlen=(3, 10), actual_seq_kvlen=(3, 10)
        )


def test_gradients_of_attention_are_those_of_torchs(operators):
    torch.manual_seed(0)
    q, k, v = some_heads(torch.float32)
    weights = torch.randn(2, 4, 7, 8)
    (operators.npu_fusion_attention(q, k, v, 4, "BNSD", atten_mask=causal(7), scale=0.3)[0]
     * weights).sum().backward()  # fmt: skip
    ours = [tensor.grad.clone() for tensor in (q, k, v)]
    for tensor in (q, k, v):
        tensor.grad = None
    plain = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=~causal(7), scale=0.3, enable_gqa=True
    )
    (plain * weights).sum().backward()
    for one, tensor in zip(ours, (q, k, v), strict=True):
        assert torch.allclose(one, tensor.grad, rtol=1e-4, atol=1e-5)


def test_inference_attention_with_a_cache(operators, dtype):
    """One new token, and the keys of five."""
    q = torch.randn(1, 1, 4, 8).to(dtype)
    k, v = (torch.randn(1, 5, 2, 8).to(dtype) for _ in range(2))
    result, _ = operators.npu_fused_infer_attention_score(
        q, k, v, num_heads=4, num_key_value_heads=2, scale=0.3, input_layout="BSND",
        actual_seq_lengths=[1], actual_seq_lengths_kv=[5],
    )  # fmt: skip
    exact = rows_of_softmax(*(t.transpose(1, 2) for t in (q, k, v)), 0.3, None).transpose(1, 2)
    tolerance = 1e-6 if dtype == torch.float32 else 2.0**-7
    assert torch.allclose(result.double(), exact, rtol=0, atol=tolerance)
    with pytest.raises(NotImplementedError, match="shorter than 5 tokens"):
        operators.npu_fused_infer_attention_score(
            q, k, v, num_heads=4, input_layout="BSND", actual_seq_lengths_kv=[4]
        )


@pytest.mark.parametrize(
    "options", [{"keep_prob": 0.9}, {"sparse_mode": 2}, {"pse": torch.zeros(1)}, {"prefix": [1]}]
)
def test_what_is_not_there_is_refused(operators, options):
    q, k, v = some_heads(torch.float32)
    with pytest.raises(NotImplementedError, match="stand-in: npu_fusion_attention with"):
        operators.npu_fusion_attention(q, k, v, 4, "BNSD", **options)


def test_masked_softmax(operators, dtype):
    x = torch.randn(2, 3, 5, 5).to(dtype)
    exact = (x.double() * 0.5).masked_fill(causal(5), -10000.0).softmax(-1)
    assert one_rounding(operators.npu_scaled_masked_softmax(x, causal(5), 0.5), exact)
    assert one_rounding(operators.npu_scaled_masked_softmax(x, None, 0.5, True), exact)


def test_adamw_is_torchs_over_many_steps(operators):
    torch.manual_seed(0)
    plain = torch.nn.Parameter(torch.randn(50))
    weights, first, second = plain.detach().clone(), torch.zeros(50), torch.zeros(50)
    options = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-3, "weight_decay": 0.1}
    optimizer = torch.optim.AdamW([plain], **options)
    for step in range(20):
        plain.grad = torch.randn(50)
        optimizer.step()
        operators.npu_apply_adam_w(
            0.9**step, 0.95**step, 1e-2, 0.1, 0.9, 0.95, 1e-3, plain.grad, None, False, False,
            out=(weights, first, second),
        )  # fmt: skip
    assert torch.allclose(weights, plain, rtol=1e-5, atol=1e-6)


def test_a_tiny_models_picture_tokens_become_the_built_in_ones(npu_on_cpu):
    from types import SimpleNamespace

    from npu_on_cpu.tiny_models import with_built_in_ids

    model = SimpleNamespace(img_context_token_id=638, video_token_id=639)
    ids = torch.tensor([[1, 638, 638, 2, 639]])
    assert with_built_in_ids(ids, model).tolist() == [[1, 151655, 151655, 2, 151656]]
    real = SimpleNamespace(img_context_token_id=151655, video_token_id=151656)
    ids = torch.tensor([[1, 151655, 7]])
    assert torch.equal(with_built_in_ids(ids, real), ids)
