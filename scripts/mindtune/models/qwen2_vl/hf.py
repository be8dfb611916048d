"""transformers' classes of Qwen2-VL.

Its Qwen2VLProcessor needs torchvision (for its video half), which this project does without; the two
halves it needs, tokenizer and image processor, are used directly.
"""

import transformers
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

CONFIG = Qwen2VLConfig
MODEL = Qwen2VLForConditionalGeneration
PROJECTOR = "merger"
PATCHES_IN_ORDER = True


def image_processor() -> type:
    """Without torchvision, transformers 5 has a second class for PIL alone."""
    name = "Qwen2VLImageProcessorPil"
    return getattr(transformers, name, None) or transformers.Qwen2VLImageProcessor
