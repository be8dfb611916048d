"""Bytes only: torch's zip and pickle, safetensors, and streaming views of their tensors."""
