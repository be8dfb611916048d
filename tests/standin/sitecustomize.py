"""Switches the stand-in on in every Python process that has this directory on its path.

Python imports `sitecustomize` at start-up. With MINDTUNE_STANDIN=1 the stand-in is put in place
right after torch has been imported, hence before anything that builds on it; a process that never
imports torch pays nothing.
"""

import importlib.abc
import importlib.util
import os
import sys


class _AfterTorch(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads torch as it would be loaded anyway, then puts the stand-in in place."""

    def __init__(self) -> None:
        self.loader = None

    def find_spec(self, name, path=None, target=None):
        if name != "torch" or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            self.loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module) -> None:
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        import npu_on_cpu

        npu_on_cpu.install()


if os.environ.get("MINDTUNE_STANDIN") == "1":
    # TorchScript can't compile functions that make tensors on a mapped device.
    os.environ.setdefault("PYTORCH_JIT", "0")
    sys.meta_path.insert(0, _AfterTorch())
