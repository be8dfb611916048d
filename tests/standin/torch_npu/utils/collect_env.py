"""torch_npu.utils.collect_env."""


def get_cann_version(*args, **kwargs) -> str:
    """The version that MindSpeed-MM 2.0.0 asks for; the framework chooses operators by it."""
    return "8.1.RC1"
