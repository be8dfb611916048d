"""torch_npu.profiler.profiler."""


def analyse(*args, **kwargs):
    raise NotImplementedError("stand-in: a profile needs an NPU")
