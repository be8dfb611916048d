"""torch_npu.utils."""


def register_asd_hook(*args, **kwargs) -> None:
    """Watches for silent errors of the hardware on an NPU (NPU_ASD_ENABLE)."""
