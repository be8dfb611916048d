"""NPUs, as `npu-smi info` tells of them, and the rows about them.

The form of the table was taken from published outputs of drivers 23 to 25: two lines a chip, the
first with NPU, name and health, the second with chip, bus and memory in MB.
"""

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mindtune.engines.mindspeed.framework.rows import FAIL, OK, REHEARSED, WARNING, Row

MADE_FOR = "910B"
BUSY = 0.1  # share of memory that another process may hold
_FIRST = re.compile(r"^\|\s*(\d+)\s+(\S+)\s*\|\s*(\w+)\s*\|")
_SECOND = re.compile(r"^\|\s*(\d+)(?:\s+\d+)?\s*\|\s*[0-9A-Fa-f:.]+\s*\|(.*)\|\s*$")
_USAGE = re.compile(r"(\d+)\s*/\s*(\d+)")
_VERSION = re.compile(r"npu-smi\s+\S+\s+Version:\s*(\S+)")
_PROCESS = re.compile(r"^\|\s*(\d+)\s+(\d+)\s*\|\s*(\d+)\s*\|\s*(\S+)")


@dataclass(frozen=True)
class NpuSmi:
    """What running npu-smi gave. found: whether there is such a program."""

    found: bool
    status: int = 0
    text: str = ""


@dataclass(frozen=True)
class Device:
    """A chip: its NPU and chip number, name, health, and memory in MB."""

    npu: int
    chip: int
    name: str
    health: str
    used_mb: int
    total_mb: int


def ask() -> NpuSmi:
    """Run `npu-smi info`."""
    try:
        done = subprocess.run(
            ["npu-smi", "info"],  # noqa: S607
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace",
            check=False, timeout=60,
        )  # fmt: skip
    except FileNotFoundError:
        return NpuSmi(False)
    except subprocess.TimeoutExpired:
        return NpuSmi(True, 124, "no answer within 60 s")
    except OSError as error:
        return NpuSmi(True, 126, str(error))
    return NpuSmi(True, done.returncode, done.stdout)


def devices(text: str) -> list[Device]:
    """The chips of `npu-smi info`."""
    found, first = [], None
    for line in text.splitlines():
        if match := _FIRST.match(line):
            first = match
        elif first and (match := _SECOND.match(line)):
            # The last pair with a total is the chip's own memory, HBM where it has some.
            pairs = [(int(used), int(total)) for used, total in _USAGE.findall(match[2])]
            used, total = next((pair for pair in reversed(pairs) if pair[1]), (0, 0))
            found.append(Device(int(first[1]), int(match[1]), first[2], first[3], used, total))
            first = None
    return found


def processes(text: str) -> list[tuple[int, str]]:
    """Process id and name of what runs on NPUs."""
    after = text.partition("Process id")[2]
    return [
        (int(match[3]), match[4]) for line in after.splitlines() if (match := _PROCESS.match(line))
    ]


def driver(text: str, version_info: str | None) -> str | None:
    """The driver's version: of its `version.info`, else as npu-smi heads its table."""
    for line in (version_info or "").splitlines():
        if line.startswith("Version="):
            return line.partition("=")[2].strip()
    match = _VERSION.search(text)
    return match[1] if match else None


def visible(all_devices: Sequence[Device], wanted: str | None) -> list[Device]:
    """The chips that ASCEND_RT_VISIBLE_DEVICES leaves, such as `0,1` or `0-3`; all without it."""
    if not wanted:
        return [*all_devices]
    numbers: list[int] = []
    for part in wanted.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit():
            numbers += range(int(first), int(last if last.isdigit() else first) + 1)
    return [device for index, device in enumerate(all_devices) if index in numbers]


def device_row(told: NpuSmi, wanted: int, visible_devices: str | None) -> Row:
    """Whether there are as many healthy NPUs as a training takes on this node."""
    name = "NPU devices"
    trouble = _trouble(told)
    if trouble:
        return Row(name, FAIL, trouble)
    everything = devices(told.text)
    found = visible(everything, visible_devices)
    if len(found) < wanted:
        limited = (
            f", of which ASCEND_RT_VISIBLE_DEVICES={visible_devices} leaves {len(found)}"
            if len(found) < len(everything)
            else ""
        )
        return Row(
            name, FAIL,
            f"mindspeed.npus_per_node is {wanted}, but this node has {len(everything)}{limited}; "
            f"write {max(len(found), 1)}, or take a node with more.",
        )  # fmt: skip
    ill = [device for device in found[:wanted] if device.health != "OK"]
    if ill:
        return Row(
            name, FAIL if any(device.health != "Warning" for device in ill) else WARNING,
            f"NPU {ill[0].npu} says {ill[0].health}; see `npu-smi info -t health -i {ill[0].npu}`, or "
            "leave it out with ASCEND_RT_VISIBLE_DEVICES.",
        )  # fmt: skip
    kinds = ", ".join(sorted({device.name for device in found}))
    if not all(MADE_FOR in device.name for device in found):
        return Row(
            name, WARNING,
            f"{len(found)} x {kinds}; MindSpeed-MM 2.0.0 was made for {MADE_FOR}, and nothing is "
            "known here about others.",
        )  # fmt: skip
    return Row(name, OK, f"{len(found)} x {kinds}, {wanted} used")


def _trouble(told: NpuSmi) -> str | None:
    said = told.text.strip().splitlines()
    quoted = f" (npu-smi: {said[0].strip()})" if said else ""
    if not told.found:
        return (
            "there is no npu-smi: install Ascend's driver; in a container, mount "
            "/usr/local/bin/npu-smi, /usr/local/dcmi and /usr/local/Ascend/driver; to rehearse "
            "without an NPU, set mindspeed.stand_in."
        )
    if "-8020" in told.text or "device is used" in told.text:
        return (
            f"another container holds the NPUs{quoted}; stop it, or give each its own with "
            "ASCEND_VISIBLE_DEVICES when they are started."
        )
    if told.status == 126 or re.search(r"permission|not permitted|-8002", told.text, re.IGNORECASE):
        return (
            f"you may not use the NPUs{quoted}: have your user added to the group HwHiAiUser, which "
            "owns /dev/davinci*, and log in again."
        )
    if not devices(told.text):
        return (
            f"the driver shows no NPU{quoted}: see that it is loaded (`ls /dev/davinci*`), and in a "
            "container that /dev/davinci*, /dev/davinci_manager, /dev/devmm_svm and /dev/hisi_hdc "
            "are passed in."
        )
    return None


def memory_row(
    found: Sequence[Device], running: Sequence[tuple[int, str]], needed: float | None
) -> Row:
    """Whether weights and optimizer fit, and whether others are there.

    needed: bytes on each NPU without activations; None where the model isn't known yet.
    """
    name = "NPU memory"
    if not found:
        return Row(name, FAIL, "unknown, as no NPU was found; see above.")
    smallest = min(device.total_mb for device in found)
    wanted = 0 if needed is None else needed / 2**20
    if wanted > smallest:
        return Row(
            name, FAIL,
            f"weights, gradients and optimizer take {wanted / 1024:.0f} GiB on each NPU, which has "
            f"{smallest / 1024:.0f}; use more NPUs, or raise "
            "parallel.tensor_model_parallel_size or the stages of parallel.llm_pp_layers.",
        )  # fmt: skip
    busy = [device for device in found if device.used_mb > BUSY * device.total_mb]
    if busy or running:
        who = ", ".join(f"{name} (pid {pid})" for pid, name in running[:3]) or "something"
        most = max(device.used_mb for device in found)
        return Row(
            name, WARNING,
            f"{who} is running on the NPUs, up to {most / 1024:.1f} GiB are taken; wait until it "
            "ends, or choose others with ASCEND_RT_VISIBLE_DEVICES.",
        )  # fmt: skip
    estimate = "" if needed is None else f", some {wanted / 1024:.0f} needed before activations"
    if wanted > 0.8 * smallest:
        return Row(
            name, WARNING,
            f"{smallest / 1024:.0f} GiB each{estimate}: little is left for activations; if memory runs "
            "out, use more NPUs or a smaller train.seq_length.",
        )  # fmt: skip
    return Row(name, OK, f"{smallest / 1024:.0f} GiB each{estimate}")


def driver_row(version: str | None, wanted: str) -> Row:
    if version is None:
        return Row(
            "driver", WARNING,
            "its version can't be read from /usr/local/Ascend/driver/version.info; in a container, "
            "mount that file.",
        )  # fmt: skip
    if version.lower() == wanted.lower():
        return Row("driver", OK, version)
    return Row(
        "driver", WARNING,
        f"{version}, where MindSpeed-MM 2.0.0 names {wanted}; other ones mostly work, but if HCCL or "
        "operators fail, begin there.",
    )  # fmt: skip


def rows(
    told: NpuSmi, version_info: str | None, wanted: int, driver_wanted: str, needed: float | None,
    visible_devices: str | None,
) -> Iterator[Row]:  # fmt: skip
    """All about the NPUs of this node."""
    yield device_row(told, wanted, visible_devices)
    found = visible(devices(told.text), visible_devices)
    yield memory_row(found, processes(told.text), needed)
    yield driver_row(driver(told.text, version_info), driver_wanted)


def rehearsed() -> Iterator[Row]:
    """The rows with a stand-in, which say nothing about any NPU."""
    for name in ("NPU devices", "NPU memory", "driver"):
        yield Row(name, REHEARSED, "mindspeed.stand_in takes its place")
