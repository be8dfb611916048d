"""MindSpeed-MM 2.0.0 does not know Qwen3-VL."""

FRAMEWORK = None
