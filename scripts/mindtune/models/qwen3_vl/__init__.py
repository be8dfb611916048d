"""Qwen3-VL: pictures enter several layers of the decoder, queries and keys are normed, and positions are learned."""
