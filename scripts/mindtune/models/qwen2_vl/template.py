"""MindSpeed-MM's template `qwen2vl`, which its training uses whatever template a model's directory has."""

from mindtune.models.template import Template

TEMPLATE = Template(
    turn_start="<|im_start|>",
    turn_end="<|im_end|>",
    text_end="<|endoftext|>",
    picture="<|image_pad|>",
    picture_start="<|vision_start|>",
    picture_end="<|vision_end|>",
    system="You are a helpful assistant.",
)
