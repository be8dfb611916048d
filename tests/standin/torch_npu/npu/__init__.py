"""`torch.npu`: torch.cuda as the stand-in left it, and the few names that only an NPU has."""

import sys
import types

import torch

config = types.SimpleNamespace(allow_internal_format=False)
matmul = types.SimpleNamespace(allow_hf32=False)


def set_compile_mode(**options) -> None:
    """The compiler of CANN's operators has no part here."""


def set_option(options) -> None:
    """Nor have its options."""


class _Memory(types.ModuleType):
    """Allocators and their records, of which the CPU has none."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


memory = sys.modules["torch_npu.npu.memory"] = _Memory("torch_npu.npu.memory")


def __getattr__(name):
    return getattr(torch.cuda, name)
