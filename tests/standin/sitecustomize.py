"""Switches the stand-in on in every Python process that has this directory on its path.

Python imports `sitecustomize` at start-up. With MINDTUNE_STANDIN=1 the stand-in is put in place
right after torch has been imported, hence before anything that builds on it; a process that never
imports torch pays nothing.
"""

import os

if os.environ.get("MINDTUNE_STANDIN") == "1":
    from npu_on_cpu import context_parallel, tiny_models, torch_is_imported
    from npu_on_cpu.importing import after_import

    # TorchScript can't compile functions that make tensors on a mapped device.
    os.environ.setdefault("PYTORCH_JIT", "0")
    after_import("torch", torch_is_imported)
    after_import(context_parallel.MODULE, context_parallel.mapping_is_imported)
    after_import(tiny_models.MODULE, tiny_models.masks_are_imported)
