"""Qwen2-VL's image processor, as transformers sets it where nothing else is said."""

from mindtune.models.pictures import Pictures

PICTURES = Pictures(
    least=56 * 56, most=28 * 28 * 1280, patch_size=14, temporal_patch_size=2, merge_size=2
)
