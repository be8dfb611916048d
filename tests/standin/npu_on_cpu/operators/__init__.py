"""The fused operators that MindSpeed-MM calls for Qwen2-VL, in plain torch.

Names, parameters and results are those of torch_npu's documentation. A case that the framework does not
reach for this model raises NotImplementedError and names what it lacks, rather than compute something
else. Each one's docstring says how exact it is; the order of summation within an operator is the
CPU's, so that no result equals the NPU's to the last bit.
"""

from npu_on_cpu.operators.activation import npu_geglu, npu_swiglu
from npu_on_cpu.operators.adamw import npu_apply_adam_w
from npu_on_cpu.operators.attention import (
    npu_fused_infer_attention_score,
    npu_fusion_attention,
    npu_scaled_masked_softmax,
)
from npu_on_cpu.operators.norm import npu_rms_norm
from npu_on_cpu.operators.rotary import npu_rotary_mul

__all__ = [
    "npu_apply_adam_w",
    "npu_fused_infer_attention_score",
    "npu_fusion_attention",
    "npu_geglu",
    "npu_rms_norm",
    "npu_rotary_mul",
    "npu_scaled_masked_softmax",
    "npu_swiglu",
]
