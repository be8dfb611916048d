"""Qwen3-VL's image processor is Qwen2-VL's class; its preprocessor_config.json sets patches of 16 pixels.

A directory in which that is left out has the class's 14, which don't fit the model's.
"""

from mindtune.models.qwen2_vl.pictures import PICTURES

__all__ = ["PICTURES"]
