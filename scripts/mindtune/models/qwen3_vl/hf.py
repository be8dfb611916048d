"""transformers' classes of Qwen3-VL, whose pictures are prepared as Qwen2-VL's, in patches of another size."""

from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from mindtune.models.qwen2_vl.hf import image_processor

__all__ = ["CONFIG", "MODEL", "PATCHES_IN_ORDER", "PROJECTOR", "image_processor"]

CONFIG = Qwen3VLConfig
MODEL = Qwen3VLForConditionalGeneration
PROJECTOR = "merger"  # the deepstack_merger_list beside it is trained and frozen with it
PATCHES_IN_ORDER = True
