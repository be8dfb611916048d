"""transformers' classes of Qwen2.5-VL, whose pictures are prepared as Qwen2-VL's."""

from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from mindtune.models.qwen2_vl.hf import image_processor

__all__ = ["CONFIG", "MODEL", "PROJECTOR", "image_processor"]

CONFIG = Qwen2_5_VLConfig
MODEL = Qwen2_5_VLForConditionalGeneration
PROJECTOR = None  # patches are in the order of windows
