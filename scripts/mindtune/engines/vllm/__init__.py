"""Answering with vLLM, under a Python of its own."""
