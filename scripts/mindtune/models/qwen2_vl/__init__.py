"""Qwen2-VL: sizes and tensors."""
