"""Where and how precisely the `hf` engine computes."""

from collections.abc import Mapping

import torch

from mindtune.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def open_device(machine: Mapping) -> torch.device:
    """Set torch up as the `hf` section says; returns the device.

    Raises
    ------
    UserError: torch can't reach such a device here.
    """
    torch.set_num_threads(machine["threads"])
    name = machine["device"]
    kind, _, number = name.partition(":")
    if kind == "npu":
        try:
            import torch_npu  # noqa: F401 - registers the device
        except ImportError as error:
            raise UserError(
                "hf.device is npu, but torch_npu is not installed in this environment; install "
                "the one for your CANN version, or write cpu."
            ) from error
    if kind != "cpu":
        backend = getattr(torch, kind, None)
        if backend is None or not backend.is_available():
            raise UserError(
                f"hf.device is {name}, but torch {torch.__version__} finds none; write cpu."
            )
        count = backend.device_count()
        if number and int(number) >= count:
            raise UserError(
                f"hf.device is {name}, but there {'is' if count == 1 else 'are'} {count} here, "
                f"counted from 0; write {kind}:{count - 1} or a lower number."
            )
    return torch.device(name)
