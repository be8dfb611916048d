"""An Ascend NPU's place taken by the CPU, for rehearsing a run of MindSpeed-MM without one.

`install` changes torch in place: device names (`devices`), the name space of the accelerator
(`accelerator`) and collective operations (`collectives`). The fused operators are in `operators`,
and reach the framework through the package `torch_npu` next to this one.
"""

from npu_on_cpu import accelerator, collectives, devices


def install() -> None:
    """Change torch so that what is meant for an NPU or for CUDA runs on the CPU."""
    devices.install()
    accelerator.install()
    collectives.install()
