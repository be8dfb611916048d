"""Qwen3-VL's image processor is Qwen2-VL's class, in which its preprocessor_config.json sets patches of 16 pixels."""

from mindtune.models.pictures import Pictures

PICTURES = Pictures(
    least=256 * 256, most=4096 * 4096, patch_size=16, temporal_patch_size=2, merge_size=2
)
