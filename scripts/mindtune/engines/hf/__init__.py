"""The `hf` engine: transformers and torch, on a CPU or any torch device."""
