"""An Ascend NPU's place taken by the CPU, for rehearsing a run of MindSpeed-MM without one.

`torch_is_imported` changes torch in place: device names (`devices`), the name space of the accelerator
(`accelerator`) and collective operations (`collectives`). The fused operators are in `operators`,
and reach the framework through the package `torch_npu` next to this one. `tiny_models` is for
models with other token ids than Qwen2-VL's.

This module imports none of them: it is there before torch is.
"""


def torch_is_imported(torch) -> None:
    """Change torch so that what is meant for an NPU or for CUDA runs on the CPU."""
    from npu_on_cpu import accelerator, collectives, devices

    devices.install()
    accelerator.install()
    collectives.install()
