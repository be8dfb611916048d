"""transformers' classes of Qwen3-VL, whose pictures are prepared as Qwen2-VL's, in patches of another size."""

from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from mindtune.models.qwen2_vl.hf import image_processor

__all__ = ["CONFIG", "MODEL", "PROJECTOR", "image_processor"]

CONFIG = Qwen3VLConfig
MODEL = Qwen3VLForConditionalGeneration
PROJECTOR = None  # there are others, for layers of the decoder
