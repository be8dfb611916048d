"""The devices `npu` and `cuda` under the names of the CPU.

Stands in for torch's device handling together with torch_npu's `transfer_to_npu`, which lets
code written for CUDA run on an NPU. Exact: the same values, in the CPU's memory.
"""

import copyreg
import functools

import torch

RealDevice = torch.device
RealGenerator = torch.Generator
CPU = RealDevice("cpu")
ACCELERATORS = ("cuda", "npu")

FACTORIES = (
    "arange", "as_tensor", "asarray", "empty", "empty_like", "empty_strided", "eye", "full",
    "full_like", "linspace", "logspace", "normal", "ones", "ones_like", "rand", "rand_like",
    "randint", "randint_like", "randn", "randn_like", "randperm", "range", "scalar_tensor",
    "sparse_coo_tensor", "tensor", "tril_indices", "triu_indices", "zeros", "zeros_like",
)  # fmt: skip
METHODS = ("new_empty", "new_full", "new_ones", "new_tensor", "new_zeros")


def on_cpu(device):
    """A device as torch takes it; an accelerator's name, index or object becomes the CPU."""
    if isinstance(device, int) and not isinstance(device, bool):
        return CPU
    if isinstance(device, str) and device.split(":")[0] in ACCELERATORS:
        return CPU
    if isinstance(device, RealDevice) and device.type in (*ACCELERATORS, "privateuseone"):
        return CPU
    return device


class _DeviceType(type):
    def __instancecheck__(cls, value) -> bool:
        return isinstance(value, RealDevice)

    def __subclasscheck__(cls, other) -> bool:
        return other is cls or issubclass(other, RealDevice)


class Device(metaclass=_DeviceType):
    """`torch.device`: makes real devices, and takes real devices for its instances."""

    def __new__(cls, *args, **kwargs):
        named = args[0] if args else kwargs.get("type", kwargs.get("device"))
        return CPU if on_cpu(named) is CPU else RealDevice(*args, **kwargs)


class _GeneratorType(type):
    def __instancecheck__(cls, value) -> bool:
        return isinstance(value, RealGenerator)


class Generator(metaclass=_GeneratorType):
    """`torch.Generator`, on the CPU."""

    def __new__(cls, device="cpu"):
        return RealGenerator(device=on_cpu(device))


def _with_device(function):
    """A function that takes `device=`, and `pin_memory=`, which only CUDA can do."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        if kwargs.get("device") is not None:
            kwargs["device"] = on_cpu(kwargs["device"])
        if "pin_memory" in kwargs:
            kwargs["pin_memory"] = False
        return function(*args, **kwargs)

    return wrapper


def _moving(function):
    """`Tensor.to` or `Module.to`, whose first argument may be a device."""

    @functools.wraps(function)
    def wrapper(self, *args, **kwargs):
        if args:
            args = (on_cpu(args[0]), *args[1:])
        if kwargs.get("device") is not None:
            kwargs["device"] = on_cpu(kwargs["device"])
        return function(self, *args, **kwargs)

    return wrapper


def _unmoved(self, *args, **kwargs):
    return self


def _tensor_type(real):
    """`Tensor.type`, with an NPU's names: MindSpeed replaces their `npu` by `cuda`."""

    @functools.wraps(real)
    def type_(self, dtype=None, *args, **kwargs):
        if dtype is None:
            return real(self).replace("torch.", "torch.npu.", 1)
        if isinstance(dtype, str):
            for name in ACCELERATORS:
                dtype = dtype.replace(f"torch.{name}.", "torch.")
        return real(self, dtype, *args, **kwargs)

    return type_


def _loading(real):
    @functools.wraps(real)
    def load(f, map_location=None, *args, **kwargs):
        if map_location is None or isinstance(map_location, (str, RealDevice)):
            map_location = on_cpu(map_location) or CPU
        return real(f, map_location, *args, **kwargs)

    return load


def install() -> None:
    """Replace torch's constructors and methods that name a device."""
    Device.__module__, Device.__qualname__ = "torch", "device"
    torch.device = Device
    copyreg.pickle(RealDevice, lambda device: (Device, (str(device),)))
    torch.Generator = Generator
    for name in FACTORIES:
        setattr(torch, name, _with_device(getattr(torch, name)))
    tensor, module = torch.Tensor, torch.nn.Module
    for name in METHODS:
        setattr(tensor, name, _with_device(getattr(tensor, name)))
    for kind in (tensor, module):
        kind.to = _moving(kind.to)
        kind.cuda = kind.npu = _unmoved
    tensor.pin_memory = _unmoved
    # transfer_to_npu answers for `is_cuda`, too; Megatron asserts it of what it sends between stages.
    tensor.is_npu = tensor.is_cuda = property(lambda self: True)
    tensor.type = _tensor_type(tensor.type)
    torch.load = _loading(torch.load)
