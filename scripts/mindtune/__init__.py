"""mindtune: fine-tune Qwen2-VL with MindSpeed-MM and show what the fine-tuning did."""

__version__ = "0.2.0"
