"""Starting programs of the framework: a script that shows all, run with its lines watched.

A launch is written to a `launch.sh` of the experiment's own and run from there, so that what ran
can be read, and run again by hand. It starts torchrun directly, never the framework's own
shell scripts, whose exit status says nothing.
"""

import ctypes
import logging
import os
import shlex
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mindtune.engines.mindspeed.arguments import World
from mindtune.engines.mindspeed.machine import Machine
from mindtune.errors import UserError
from mindtune.files import writing
from mindtune.process import slow_to_stop

log = logging.getLogger(__name__)

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
# The framework finds all it needs on the disk; a look at a hub would only be a delay.
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
# Of our own Python, and nothing for another.
OURS = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "PYTHONNOUSERSITE")
Heard = Callable[[str], None]
DEFAULT_PORT = 6000
SECONDS_TO_END = 30
SCRATCH = ".torchrun"


@dataclass(frozen=True)
class Launch:
    """One program of the framework.

    directory: gets `launch.sh` and is the working directory. program: what Python is given, a
    file's absolute path or `-m` and a module. arguments: its arguments. world: on whose processes
    torchrun starts it; None for one plain process. environment: variables beside the caller's.
    """

    directory: Path
    program: Sequence[str]
    arguments: Sequence[str]
    machine: Machine
    world: World | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def write(self) -> Path:
        """Write `launch.sh`, which takes the rank of its node as an argument."""
        path = self.directory / "launch.sh"
        with writing(path) as handle:
            handle.write(self.script())
        path.chmod(0o755)
        return path

    def script(self) -> str:
        """The script's text. Every value in it is quoted."""
        lines = ["#!/usr/bin/env bash", "# Made by mindtune. Usage: launch.sh [rank of this node]"]
        lines += ["set -eu", 'node_rank="${1:-${SLURM_NODEID:-0}}"']
        lines += [f"unset {' '.join(OURS)}"]
        if self.machine.set_env:
            # set_env.sh reads variables that may be unset.
            lines += ["set +u", f"source {_quoted(self.machine.set_env)}", "set -u"]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in self.environment.items()]
        # Megatron compiles a helper with the `python3` that comes first.
        lines += [f'export PATH={_quoted(self.machine.python.parent)}:"$PATH"']
        lines += self._python_path()
        lines += [f"cd {_quoted(self.directory.resolve())}", self._command()]
        return "\n".join(lines) + "\n"

    def _python_path(self) -> list[str]:
        machine = self.machine
        places = [machine.home, machine.home / "MindSpeed"]
        lines = []
        if machine.stand_in:
            places.insert(0, machine.stand_in)
            lines = ["export MINDTUNE_STANDIN=1", 'export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"']
        path = ":".join(map(_quoted, places))
        # set_env.sh puts CANN's own packages there, which must stay.
        return [*lines, f'export PYTHONPATH={path}"${{PYTHONPATH:+:$PYTHONPATH}}"']

    def _command(self) -> str:
        words = [*self.program, *self.arguments]
        if self.world:
            return f'exec {self._torchrun(self.world)} --node_rank "$node_rank" {shlex.join(words)}'
        return f"exec {shlex.join([str(self.machine.python), *words])}"

    def _torchrun(self, world: World) -> str:
        several = world.nodes > 1
        master = master_address(self.machine, world) if several else "localhost"
        port = self.machine.master_port or (DEFAULT_PORT if several else free_port())
        return shlex.join(
            [
                *(str(self.machine.python), "-m", "torch.distributed.run"),
                *("--nproc_per_node", str(world.npus_per_node), "--nnodes", str(world.nodes)),
                *("--master_addr", master, "--master_port", str(port)),
                # It would leave a folder in /tmp for each start.
                *("--log_dir", str(self._scratch)),
            ]
        )

    @property
    def _scratch(self) -> Path:
        """Where torchrun makes its folders, on all nodes; removed when the launch ends."""
        return (self.directory / SCRATCH).resolve()

    def commands(self, script: Path) -> list[list[str]]:
        """What starts `script` on every node: one command alone, or by srun, or one for each host."""
        path = str(script.resolve())
        nodes = self.world.nodes if self.world else 1
        if nodes == 1:
            return [["bash", path]]
        if self.machine.hosts:
            # ssh hands its words to a shell there, so they are quoted for it.
            return [
                ["ssh", "-tt", "-o", "BatchMode=yes", host, shlex.join(["bash", path, str(rank)])]
                for rank, host in enumerate(self.machine.hosts)
            ]
        return [
            ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1",
             "--kill-on-bad-exit=1", "bash", path]
        ]  # fmt: skip

    def run(self, heard: Heard, heard_error: Heard | None = None) -> int:
        """Run it to its end; each line goes to the log, and to `heard`. Returns the exit status,
        negative for a signal's number.

        heard_error: gets the lines of stderr, which otherwise go where the others go. An
        exception in either ends the programs and is passed on; they end also when
        this process does, however that happens.
        """
        commands = self.commands(self.write())
        processes = [_start(command, self.directory, heard_error) for command in commands]
        with slow_to_stop(2 * SECONDS_TO_END * len(processes)):
            return self._listen_to_end(processes, heard, heard_error)

    def _listen_to_end(
        self, processes: Sequence[subprocess.Popen], heard: Heard, heard_error: Heard | None
    ) -> int:
        try:
            for process in processes[1:]:
                _drain(process.stdout, lambda _: None)
            if heard_error:
                _drain(processes[0].stderr, heard_error)
            _listen(processes[0].stdout, heard)
            return max((process.wait() for process in processes), key=abs)
        finally:
            for process in processes:
                _end(process)
            shutil.rmtree(self._scratch, ignore_errors=True)


def environment_of(kind: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The variables of a launch: the tutorial's, those of its kind, and then the user's."""
    return {**ENVIRONMENT, **kind, **OFFLINE, **given}


def free_port() -> int:
    """A TCP port that nobody listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def master_address(machine: Machine, world: World) -> str:
    """The name of the first node: of the hosts, or else of the Slurm job's nodes.

    Raises
    ------
    UserError: there is neither.
    """
    if machine.hosts:
        return machine.hosts[0]
    listed = os.environ.get("SLURM_JOB_NODELIST") or os.environ.get("SLURM_NODELIST")
    if not listed:
        raise UserError(
            f"mindspeed.nodes is {world.nodes}, but this is no job of Slurm's and mindspeed.hosts is "
            "empty; submit it with profiles/slurm, or name the hosts."
        )
    done = subprocess.run(  # noqa: S603
        ["scontrol", "show", "hostnames", listed],  # noqa: S607
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    names = done.stdout.split()
    if done.returncode or len(names) < world.nodes:
        raise UserError(
            f"mindspeed.nodes is {world.nodes}, but the Slurm job has {len(names)}: {listed}; ask "
            "for as many (`nodes` of the rule finetune_model in the profile)."
        )
    return names[0]


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _start(command: Sequence[str], directory: Path, apart: Heard | None) -> subprocess.Popen:
    return subprocess.Popen(  # noqa: S603
        command,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if apart else subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )


PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Ask Linux for SIGTERM when the parent ends: an orphan would train on in our save_dir."""
    if os.uname().sysname == "Linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _listen(lines: Iterable[str], heard: Heard) -> None:
    for line in lines:
        said = line.rstrip("\n")
        log.info("%s", said, extra={"quiet": True})
        heard(said)


def _drain(lines: Iterable[str], heard: Heard) -> None:
    """Listen in a thread to what else is printed, so that no pipe fills."""
    threading.Thread(target=_listen, args=(lines, heard), daemon=True).start()


def _end(process: subprocess.Popen) -> None:
    """End a process and all that it started: first asked, then killed."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
