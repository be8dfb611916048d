"""torch_npu.utils.flops_count."""


class FlopsCounter:
    """Counts operations under --op-cal-tflops only."""

    def __init__(self) -> None:
        raise NotImplementedError("stand-in: --op-cal-tflops needs an NPU")
