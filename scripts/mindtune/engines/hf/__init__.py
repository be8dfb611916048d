"""The `hf` engine: transformers and torch, on a CPU or any torch device."""

import os

# The tokenizer works in a loader process, which forks; its own threads would not survive that.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
