"""How a program of the framework is started: CANN's variables, the tutorial's, and whose modules.

The framework's own shell scripts are never run, whose exit status says nothing.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from mindtune.engines.launching import OFFLINE, OURS, Launch, Processes, exported
from mindtune.engines.mindspeed.arguments import World
from mindtune.engines.mindspeed.machine import Machine

# What the tutorial's scripts export.
ENVIRONMENT = {
    "CUDA_DEVICE_MAX_CONNECTIONS": "1",
    "ASCEND_SLOG_PRINT_TO_STDOUT": "0",
    "ASCEND_GLOBAL_LOG_LEVEL": "3",
    "TASK_QUEUE_ENABLE": "2",
    "COMBINED_ENABLE": "1",
    "CPU_AFFINITY_CONF": "1",
    "HCCL_CONNECT_TIMEOUT": "1200",
    "NPU_ASD_ENABLE": "0",
    "ACLNN_CACHE_LIMIT": "100000",
}
TRAINING = {"ASCEND_LAUNCH_BLOCKING": "0"}
ANSWERING = {"PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True"}


def framework_launch(
    directory: Path,
    program: Sequence[str],
    arguments: Sequence[str],
    machine: Machine,
    world: World | None = None,
    environment: Mapping[str, str] | None = None,
) -> Launch:
    """A program of the framework on the processes of `world`, or as a plain one."""
    processes = world and Processes(
        "mindspeed", world.npus_per_node, world.nodes, machine.hosts, machine.master_port
    )
    setup = _setup(machine, environment or {})
    return Launch(directory, machine.python, program, arguments, processes, setup)


def _setup(machine: Machine, environment: Mapping[str, str]) -> list[str]:
    lines = [f"unset {' '.join(OURS)}"]
    if machine.set_env:
        # set_env.sh reads variables that may be unset.
        lines += ["set +u", f"source {_quoted(machine.set_env)}", "set -u"]
    lines += exported(environment)
    # Megatron compiles a helper with the `python3` that comes first.
    lines += [f'export PATH={_quoted(machine.python.parent)}:"$PATH"']
    return lines + _python_path(machine)


def _python_path(machine: Machine) -> list[str]:
    places = [machine.home, machine.home / "MindSpeed"]
    lines = []
    if machine.stand_in:
        places.insert(0, machine.stand_in)
        lines = ["export MINDTUNE_STANDIN=1", 'export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"']
    path = ":".join(map(_quoted, places))
    # set_env.sh puts CANN's own packages there, which must stay.
    return [*lines, f'export PYTHONPATH={path}"${{PYTHONPATH:+:$PYTHONPATH}}"']


def environment_of(kind: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The variables of a launch: the tutorial's, those of its kind, and then the user's."""
    return {**ENVIRONMENT, **kind, **OFFLINE, **given}


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
