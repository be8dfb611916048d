"""MindSpeed-MM trains Qwen2.5-VL with the template `qwen2vl`, as its data_7b.json says."""

from mindtune.models.qwen2_vl.template import TEMPLATE

__all__ = ["TEMPLATE"]
