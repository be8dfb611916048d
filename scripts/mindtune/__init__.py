"""mindtune: fine-tune a vision-language model with MindSpeed-MM and show what the fine-tuning did."""

__version__ = "0.2.0"
