"""The name space of the accelerator: `torch.cuda`, which torch_npu shows as `torch.npu` too.

Stands in for the runtime of the device: which there are, streams, memory and random generators.
Streams do nothing, as the CPU finishes each operation before the next begins; memory figures are
zeros, and times between events too. The generator is the CPU's, so that a seed draws other numbers
than on an NPU.
"""

import os
import types

import torch

NAME = "CPU in an NPU's place"

_current = 0


class Context:
    """Something to enter and leave: a device, or a stream."""

    def __init__(self, *args, **kwargs) -> None:
        pass

    def __enter__(self):
        return self

    def __exit__(self, *raised) -> bool:
        return False


class Stream(Context):
    """A queue of operations that are done by the time they are queued."""

    def synchronize(self) -> None:
        pass

    def wait_stream(self, stream) -> None:
        pass

    def wait_event(self, event) -> None:
        pass

    def record_event(self, event=None):
        return event or Event()

    def query(self) -> bool:
        return True


class Event(Context):
    """A mark in a stream; no time passes between two."""

    def record(self, stream=None) -> None:
        pass

    def wait(self, stream=None) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def query(self) -> bool:
        return True

    def elapsed_time(self, other) -> float:
        return 0.0


class _Zeros(dict):
    def __missing__(self, key) -> int:
        return 0


class _Generators:
    def __getitem__(self, index):
        return torch.default_generator

    def __len__(self) -> int:
        return device_count()


def device_count() -> int:
    """As many devices as torchrun started processes here, so that each has its own index."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def current_device() -> int:
    return _current


def set_device(device) -> None:
    global _current
    if isinstance(device, int):
        _current = device


def _nothing(*args, **kwargs) -> None:
    return None


def _zero(*args, **kwargs) -> int:
    return 0


def _true(*args, **kwargs) -> bool:
    return True


def _stream(*args, **kwargs) -> Stream:
    return Stream()


def _seed(seed) -> None:
    torch.default_generator.manual_seed(int(seed))


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _properties(*args, **kwargs) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        name=NAME, total_memory=_memory(), major=8, minor=0, multi_processor_count=1
    )


def _names() -> dict:
    """What replaces the functions and classes of torch.cuda, by name."""
    names = {
        "_lazy_call": lambda call, **kwargs: call(),
        "current_device": current_device,
        "default_generators": _Generators(),
        "device": Context,
        "device_count": device_count,
        "device_of": Context,
        "get_device_capability": lambda *args, **kwargs: (8, 0),
        "get_device_name": lambda *args, **kwargs: NAME,
        "get_device_properties": _properties,
        "get_rng_state": lambda *args, **kwargs: torch.get_rng_state(),
        "get_rng_state_all": lambda: [torch.get_rng_state()],
        "manual_seed": _seed,
        "manual_seed_all": _seed,
        "mem_get_info": lambda *args, **kwargs: (_memory(), _memory()),
        "memory_stats": lambda *args, **kwargs: _Zeros(),
        "memory_summary": lambda *args, **kwargs: "",
        "set_device": set_device,
        "set_rng_state": lambda state, *args, **kwargs: torch.set_rng_state(state),
        "set_rng_state_all": lambda states: torch.set_rng_state(states[0]),
        "Event": Event,
        "Stream": Stream,
    }
    for name in (
        "_lazy_init", "empty_cache", "init", "ipc_collect", "reset_max_memory_allocated",
        "reset_peak_memory_stats", "set_per_process_memory_fraction", "set_stream", "synchronize",
    ):  # fmt: skip
        names[name] = _nothing
    for name in (
        "max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved",
    ):  # fmt: skip
        names[name] = _zero
    for name in ("is_available", "is_bf16_supported", "is_initialized"):
        names[name] = _true
    for name in ("current_stream", "default_stream", "stream"):
        names[name] = _stream
    for kind in ("BFloat16", "Bool", "Byte", "Double", "Float", "Half", "Int", "Long", "Short"):
        names[f"{kind}Tensor"] = getattr(torch, f"{kind}Tensor")
    return names


def install() -> None:
    """Replace what is in torch.cuda."""
    for name, value in _names().items():
        setattr(torch.cuda, name, value)
