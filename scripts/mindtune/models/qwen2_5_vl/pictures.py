"""Qwen2.5-VL's image processor is Qwen2-VL's."""

from mindtune.models.qwen2_vl.pictures import PICTURES

__all__ = ["PICTURES"]
