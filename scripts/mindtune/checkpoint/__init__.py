"""Checkpoints between Hugging Face's form and Megatron's, bit for bit, in a stream.

docs/checkpoints.md explains both forms. `hf_to_mm`, `mm_to_hf` and `resplit` convert;
`verify` compares two checkpoints; `inspect` lists one; `save_trained` and `load_hf_tensors`
are for training in plain torch. Nothing here imports torch unless it gives or takes tensors
(or merges LoRA adapters).
"""

from mindtune.checkpoint.convert import hf_to_mm, mm_to_hf, resplit
from mindtune.checkpoint.inspection import Inspection, inspect
from mindtune.checkpoint.layout import ParallelLayout
from mindtune.checkpoint.tensors import load_hf_tensors, save_trained
from mindtune.checkpoint.verification import Verified, verify

__all__ = [
    "Inspection",
    "ParallelLayout",
    "Verified",
    "hf_to_mm",
    "inspect",
    "load_hf_tensors",
    "mm_to_hf",
    "resplit",
    "save_trained",
    "verify",
]
