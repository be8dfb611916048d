"""transformers' classes of Qwen2.5-VL, whose pictures are prepared as Qwen2-VL's."""

from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from mindtune.models.qwen2_vl.hf import image_processor

__all__ = ["CONFIG", "MODEL", "PATCHES_IN_ORDER", "PROJECTOR", "image_processor"]

CONFIG = Qwen2_5_VLConfig
MODEL = Qwen2_5_VLForConditionalGeneration
PROJECTOR = "merger"
PATCHES_IN_ORDER = False  # but window by window
