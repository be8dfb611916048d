"""torch_npu's names, for code that imports them; what they do is in `npu_on_cpu`."""

import types

import torch
from npu_on_cpu.operators import *  # noqa: F403

from torch_npu import contrib, npu, profiler, utils  # noqa: F401

__version__ = "2.1.0.post12"
unsupported_dtype = []
torch.npu = npu


class _Options:
    def __init__(self) -> None:
        self.hccl_config = {}


_C = types.SimpleNamespace(
    _distributed_c10d=types.SimpleNamespace(
        ProcessGroupHCCL=types.SimpleNamespace(Options=_Options)
    )
)
