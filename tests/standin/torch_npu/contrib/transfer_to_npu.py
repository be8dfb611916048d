"""Importing the real one turns CUDA calls into NPU calls; here both are the CPU's already."""
