"""What goes wrong in the framework, by the lines it prints, and what to do about it."""

import re
from dataclasses import dataclass

from mindtune.errors import UserError


@dataclass(frozen=True)
class Fault:
    """A known fault: the line that gives it away, and a sentence for the user.

    stops: whether the run is worth nothing from this line on, and is ended at once. Others are
    told only when the run has failed, as its likely cause.
    """

    name: str
    signature: re.Pattern[str]
    sentence: str
    stops: bool = False


def _fault(name: str, signature: str, sentence: str, stops: bool = False) -> Fault:
    return Fault(name, re.compile(signature, re.IGNORECASE), sentence, stops)


# In the order in which they explain a failure: the first that was seen is the cause.
FAULTS = (
    _fault(
        "no checkpoint",
        r"will not load any checkpoints and will start from random|could not find the metadata file",
        "the framework found no checkpoint and would have begun with random weights; see that the "
        "checkpoint's directories may be entered by you (chmod -R u+rwX), then run the same command "
        "again.",
        stops=True,
    ),
    _fault(
        "checkpoint not loaded",
        r"could not load the checkpoint",
        "the framework can't load the checkpoint: a file of it is missing or damaged, or of another "
        "layout; remove it, and run the same command again to recreate it.",
    ),
    _fault(
        "optimizer not loaded",
        r"Unable to load optimizer",
        "the checkpoint has no optimizer state that fits; it was written with other settings. "
        "Move save_dir away to train from the base, or set train.save_optim to false to go on without it.",
    ),
    _fault(
        "out of memory",
        r"NPU out of memory|CUDA out of memory|out of memory.*Tried to allocate"
        r"|DefaultCPUAllocator: can't allocate memory|Failed to allocate memory|EL0004|207018",
        "the device is out of memory: lower train.micro_batch_size or train.seq_length, or cut the "
        "model over more NPUs (parallel.tensor_model_parallel_size, parallel.llm_pp_layers).",
    ),
    _fault(
        "shared memory",
        r"unable to (?:open|write to) shared memory|No space left on device: '/dev/shm|bus error.*shm",
        "the loaders' shared memory (/dev/shm) is full: give the container more (--shm-size), or "
        "lower mindspeed.num_workers.",
    ),
    _fault(
        "killed",
        r"exitcode\s*:\s*-9\b|Signal 9 \(SIGKILL\) received|killed by signal: Killed",
        "a process of the framework was ended by signal 9 (SIGKILL: memory ran out, most likely); give "
        "the job more, or lower mindspeed.num_workers or mindspeed.preprocessing_num_workers.",
    ),
    _fault(
        "disk full",
        r"No space left on device|OSError: \[Errno 28\]|file write failed|PytorchStreamWriter failed",
        "the disk is full; free some space and run the same command again: it resumes from the last "
        "whole checkpoint. A checkpoint with optimizer state takes 12 bytes per trained parameter more "
        "(train.save_optim).",
    ),
    _fault(
        "conv3d",
        r"aclnnConvolution|Conv3D.*(?:fail|error)|conv3d.*not (?:supported|implemented)|EZ\d{4}.*Conv3D",
        "the driver or CANN fails at the vision encoder's Conv3d, which is known of drivers older "
        "than CANN 8.1.RC1 asks for; install the driver and firmware of Ascend HDK 25.0.RC1 (`doctor` "
        "shows both versions).",
    ),
    _fault(
        "port taken",
        r"EADDRINUSE|Address already in use|server socket has failed to listen",
        "the master's port is taken by another job; set mindspeed.master_port to null for a free one, "
        "or to another number.",
    ),
    _fault(
        "hccl time-out",
        r"HCCL.*time ?out|EI0002|EI0006|HcclCommInitRootInfo.*fail|Watchdog caught collective operation timeout"
        r"|Timed out waiting.*ranks|Connection (?:closed|reset) by peer.*gloo",
        "processes waited for one another in vain (HCCL): see that all nodes and NPUs run, that "
        "nobody else holds an NPU, and raise HCCL_CONNECT_TIMEOUT (mindspeed.environment) or "
        "mindspeed.distributed_timeout_minutes.",
    ),
    _fault(
        "device taken",
        r"resource busy|EJ0001|Failed to initialize the HCCP process|rtSetDevice.*(?:fail|error)"
        r"|device.*already.*(?:used|occupied)",
        "an NPU is used by another process, or was left so by one that died: look with `npu-smi info`, "
        "end the other process, or choose other NPUs with ASCEND_RT_VISIBLE_DEVICES.",
    ),
    _fault(
        "no device",
        r"(?:Torch not compiled with|No) (?:NPU|Ascend) (?:devices?|enabled)|npu.*not available|drvGetDevNum"
        r"|libascend_hal\.so|libhccl\.so",
        "no NPU is available here: run on a node with one (see `doctor`), or set mindspeed.stand_in to "
        "rehearse on a CPU.",
    ),
    _fault(
        "pictures and marks",
        r"The number of images does not match the number of <image> tokens|less than the number of <image> tokens",
        "a conversation has another number of <image> marks than of pictures; convert the data again "
        "with this pipeline, which checks it (remove results/*/data).",
    ),
    _fault(
        "stale cache",
        r"image features and image tokens do not match|shape mismatch: value tensor.*cannot be broadcast",
        "token counts and pictures disagree, as with a cache of other pictures; remove the directory "
        "mindspeed.cache and run the same command again.",
    ),
    _fault(
        "picture",
        r"cannot identify image file|image file is truncated|FileNotFoundError.*\.(?:jpe?g|png)",
        "a picture is gone or can't be decoded (see the log for which); fix it, or convert the data "
        "again.",
    ),
    _fault(
        "too little data",
        r"ZeroDivisionError",
        "there are fewer samples than one step of all data parallel ranks takes; lower "
        "train.micro_batch_size, or give more data.",
    ),
    _fault(
        "schedule changed",
        r"OptimizerParamScheduler: class input value .* and checkpointvalue .* do not match",
        "the checkpoint was written under another learning rate schedule; move save_dir away to "
        "train from the base.",
    ),
    _fault(
        "module missing",
        r"ModuleNotFoundError: No module named '(?P<module>[^']+)'",
        "the framework's Python lacks the module {module}; install it there, or let "
        "install_mindspeed_mm make the environment (mindspeed.home: null).",
    ),
)


class FaultWatch:
    """Remembers which known faults a run's lines told of.

    A sentence may name what its signature caught in a named group.
    """

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def hear(self, line: str) -> None:
        """
        Raises
        ------
        UserError: the line says that the run is worth nothing.
        """
        for fault in FAULTS:
            if fault.name not in self.seen and (match := fault.signature.search(line)):
                self.seen[fault.name] = fault.sentence.format(**match.groupdict())
                if fault.stops:
                    raise UserError(self.seen[fault.name])

    @property
    def cause(self) -> str | None:
        """The sentence of the likeliest cause, or None."""
        return next((self.seen[fault.name] for fault in FAULTS if fault.name in self.seen), None)
