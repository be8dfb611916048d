"""The profiler: the framework makes its objects even when profiling is off.

Starting it raises NotImplementedError, since a profile of this machine would say nothing of an NPU.
"""


class _Names:
    """An enumeration any of whose members exists."""

    def __getattr__(self, name):
        return name


ProfilerLevel = _Names()
AiCMetrics = _Names()
ProfilerActivity = _Names()


class _ExperimentalConfig:
    def __init__(self, *args, **kwargs) -> None:
        pass


def schedule(*args, **kwargs) -> None:
    return None


def tensorboard_trace_handler(*args, **kwargs) -> None:
    return None


class profile:
    def __init__(self, *args, **kwargs) -> None:
        pass

    def start(self) -> None:
        raise NotImplementedError("stand-in: a profile needs an NPU")

    def step(self) -> None:
        pass

    def stop(self) -> None:
        pass
