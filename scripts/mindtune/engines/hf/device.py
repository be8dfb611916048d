"""Where and how precisely the `hf` engine computes."""

from typing import TYPE_CHECKING

import torch

from mindtune.errors import UserError

if TYPE_CHECKING:
    from mindtune.settings.sections.hf import Hf

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def open_device(machine: "Hf", own: int | None = None) -> torch.device:
    """Set torch up as the `hf` section says; returns the device.

    own: the number, on its node, of a process among several, which is that of its device.

    Raises
    ------
    UserError: torch can't reach such a device here.
    """
    torch.set_num_threads(machine.threads)
    kind, _, number = machine.device.partition(":")
    if kind == "npu":
        try:
            import torch_npu  # noqa: F401 - registers the device
        except ImportError as error:
            raise UserError(
                "hf.device is npu, but torch_npu is not installed in this environment; install "
                "the one for your CANN version, or write cpu."
            ) from error
    if kind == "cpu":
        return torch.device(kind)
    backend = getattr(torch, kind, None)
    if backend is None or not backend.is_available():
        raise UserError(
            f"hf.device is {machine.device}, but torch {torch.__version__} finds none; write cpu."
        )
    count = backend.device_count()
    if number and int(number) >= count:
        raise UserError(
            f"hf.device is {machine.device}, but there {_are(count)} here, "
            f"counted from 0; write {kind}:{count - 1} or a lower number."
        )
    if machine.devices > count:
        raise UserError(
            f"hf.devices is {machine.devices}, but there {_are(count)} here; write {count} or less."
        )
    number = number if own is None else str(own)
    if number and hasattr(backend, "set_device"):
        backend.set_device(int(number))  # or what asks for `cuda` gets the first
    return torch.device(f"{kind}:{number}" if number else kind)


def _are(count: int) -> str:
    return f"{'is' if count == 1 else 'are'} {count}"
