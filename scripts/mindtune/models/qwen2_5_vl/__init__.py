"""Qwen2.5-VL: Qwen2-VL with windows, RMSNorm and a gated MLP in its vision encoder."""
