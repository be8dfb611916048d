"""MindSpeed's context parallelism, which asserts that what it gathers is an accelerator's.

Here all tensors are the CPU's and say so, but `_gather` looks at `device.type`. It gets them as a
subclass that says `cuda`; what it does with them, and its result, stay the same.
"""

import functools

MODULE = "mindspeed.core.context_parallel.unaligned_cp.mapping"


def mapping_is_imported(module) -> None:
    """Wrap the function that gathers, in the module that has it."""
    import torch

    from npu_on_cpu.devices import RealDevice

    class OnAccelerator(torch.Tensor):
        device = property(lambda self: RealDevice("cuda"))

    gather = module._gather

    @functools.wraps(gather)
    def wrapper(input_, *args, **kwargs):
        return gather(input_.as_subclass(OnAccelerator), *args, **kwargs)

    module._gather = wrapper
