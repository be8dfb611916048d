"""Each known fault by a line as the framework, torch or CANN prints it."""

import pytest
from mindtune.engines.mindspeed.faults import FAULTS, FaultWatch
from mindtune.errors import UserError

LINES = {
    "no checkpoint": "    will not load any checkpoints and will start from random",
    "checkpoint not loaded": "could not load the checkpoint",
    "optimizer not loaded": "Unable to load optimizer from checkpoint x. Specify --no-load-optim",
    "out of memory": "RuntimeError: NPU out of memory. Tried to allocate 2.32 GiB (NPU 0; 60.97 GiB",
    "shared memory": "RuntimeError: unable to open shared memory object </torch_1> in read-write mode",
    "killed": "torch.distributed.elastic: failed (exitcode: -9) local_rank: 0 (pid: 7) of binary: python",
    "disk full": "OSError: [Errno 28] No space left on device",
    "conv3d": "RuntimeError: call aclnnConvolution failed, detail:EZ9999: Inner Error!",
    "port taken": "RuntimeError: The server socket has failed to listen on any local network address.",
    "hccl time-out": "EI0006: Getting socket times out. Reason: Remote Rank did not send the data",
    "device taken": "[ERROR] HCCL: EJ0001 Failed to initialize the HCCP process.",
    "no device": "ImportError: libascend_hal.so: cannot open shared object file: No such file",
    "pictures and marks": "ValueError: The number of images does not match the number of <image> tokens",
    "stale cache": "RuntimeError: shape mismatch: value tensor of shape [336, 8] cannot be broadcast to",
    "picture": "PIL.UnidentifiedImageError: cannot identify image file '/data/1.jpg'",
    "too little data": "ZeroDivisionError: integer division or modulo by zero",
    "schedule changed": (
        "AssertionError: OptimizerParamScheduler: class input value 200 and checkpointvalue 100 for "
        "total number of iterations do not match"
    ),
    "module missing": "ModuleNotFoundError: No module named 'scipy'",
}


def test_each_fault_has_a_line_here():
    assert [fault.name for fault in FAULTS] == list(LINES)


@pytest.mark.parametrize("name", LINES)
def test_a_fault_is_known_by_its_line_alone(name):
    watch = FaultWatch()
    fault = next(fault for fault in FAULTS if fault.name == name)
    if fault.stops:
        with pytest.raises(UserError):
            watch.hear(LINES[name])
    else:
        watch.hear(LINES[name])
    assert list(watch.seen) == [name]
    assert watch.cause.endswith(".") and "{" not in watch.cause


def test_the_cause_is_what_explains_the_others():
    watch = FaultWatch()
    for name in ("hccl time-out", "out of memory", "port taken"):
        watch.hear(LINES[name])
    assert "out of memory" in watch.cause


def test_the_missing_module_is_named():
    watch = FaultWatch()
    watch.hear(LINES["module missing"])
    assert "lacks the module scipy" in watch.cause


def test_a_real_log_tells_of_no_fault():
    from test_training_log import SAMPLE

    watch = FaultWatch()
    for line in SAMPLE:
        watch.hear(line)
    assert watch.cause is None
