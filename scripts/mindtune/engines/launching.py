"""Starting programs: a script that shows all, run on one node or several, with its lines watched.

A launch is written to a `launch.sh` of its own directory and run from there, so that what ran can be
read, and run again by hand. It starts torchrun directly. Where pods have torchrun's own variables, it starts
torchrun on the first node, and the others run the same script. What a program's end is worth is for the
caller to judge, by what is on the disk then.
"""

import ctypes
import hashlib
import logging
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mindtune.errors import UserError
from mindtune.files import writing
from mindtune.process import slow_to_stop

log = logging.getLogger(__name__)

# Of our own Python, and nothing for another.
OURS = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "PYTHONNOUSERSITE")
# Programs find all they need on the disk; a look at a hub would only be a delay.
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
Heard = Callable[[str], None]
DEFAULT_PORT = 6000
SLURM = ("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_NODELIST")  # any of them in a job of Slurm's
# Where the nodes of a training meet, as torchrun, Kubeflow's PyTorchJob and others say it.
MASTER, MASTER_PORT = "MASTER_ADDR", "MASTER_PORT"
# Which node this one is; RANK is the pod's of a PyTorchJob. WORLD_SIZE counts nodes or processes.
NODE_RANKS = ("NODE_RANK", "PET_NODE_RANK", "RANK")
OWN_RANK = "${SLURM_NODEID:-0}"
POD_RANK = "${NODE_RANK:-${PET_NODE_RANK:-${RANK:-0}}}"
SECONDS_TO_END = 30
SCRATCH = ".torchrun"


@dataclass(frozen=True)
class Processes:
    """How many processes run, and where.

    section: of the configuration, in which they are asked for. hosts: the nodes' names, first that
    where the processes meet; none where Slurm knows them. port: on which they meet; None for one
    that is free (on one node), or 6000.
    """

    section: str
    per_node: int
    nodes: int = 1
    hosts: tuple[str, ...] = ()
    port: int | None = None


@dataclass(frozen=True)
class Launch:
    """One program under a Python.

    directory: gets `launch.sh` and is the working directory. python: its interpreter. program: what
    Python is given, a file's absolute path or `-m` and a module. arguments: its arguments.
    processes: those that torchrun starts; None for one plain process. setup: lines of bash before
    it, whose author has quoted their values.
    """

    directory: Path
    python: Path
    program: Sequence[str]
    arguments: Sequence[str]
    processes: Processes | None = None
    setup: Sequence[str] = ()

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
        own = POD_RANK if self.processes and in_pods(self.processes) else OWN_RANK
        lines += ["set -eu", f'node_rank="${{1:-{own}}}"', *self.setup]
        lines += [f"cd {shlex.quote(str(self.directory.resolve()))}", self._command()]
        return "\n".join(lines) + "\n"

    def _command(self) -> str:
        words = shlex.join([*self.program, *self.arguments])
        if self.processes:
            meeting = self._meeting(self.processes)
            return (
                f'exec {self._torchrun(self.processes)} {meeting} --node_rank "$node_rank" {words}'
            )
        return f"exec {shlex.quote(str(self.python))} {words}"

    def _torchrun(self, processes: Processes) -> str:
        return shlex.join(
            [
                *(str(self.python), "-m", "torch.distributed.run"),
                # It would leave a folder in /tmp for each start.
                *("--log_dir", str(self._scratch)),
                *("--nproc_per_node", str(processes.per_node), "--nnodes", str(processes.nodes)),
            ]
        )

    def _meeting(self, processes: Processes) -> str:
        """Where the nodes meet, in words of bash: a pod has an address of its own for it."""
        if in_pods(processes):
            check_pods(processes)
            port = processes.port or f"${{{MASTER_PORT}:-{DEFAULT_PORT}}}"
            # Who runs the script of another training finds nobody.
            name = hashlib.sha256(str(self.directory.resolve()).encode()).hexdigest()[:16]
            return f'--rdzv_id {name} --master_addr "${MASTER}" --master_port "{port}"'
        several = processes.nodes > 1
        master = master_address(processes) if several else "localhost"
        port = processes.port or (DEFAULT_PORT if several else free_port())
        return shlex.join(["--master_addr", master, "--master_port", str(port)])

    @property
    def _scratch(self) -> Path:
        """Where torchrun makes its folders, on all nodes; removed when the launch ends."""
        return (self.directory / SCRATCH).resolve()

    def commands(self, script: Path) -> list[list[str]]:
        """What starts `script` on every node: one command alone, or by srun, or one for each host; of pods,
        on this one."""
        path = str(script.resolve())
        nodes = self.processes.nodes if self.processes else 1
        if nodes == 1 or in_pods(self.processes):
            return [["bash", path]]
        if self.processes.hosts:
            # ssh hands its words to a shell there, so they are quoted for it.
            return [
                ["ssh", "-tt", "-o", "BatchMode=yes", host, shlex.join(["bash", path, str(rank)])]
                for rank, host in enumerate(self.processes.hosts)
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


def in_pods(processes: Processes) -> bool:
    """Whether the nodes of a training know one another by torchrun's variables: neither hosts nor Slurm."""
    slurm = any(os.environ.get(name) for name in SLURM)
    return processes.nodes > 1 and not (processes.hosts or slurm) and bool(os.environ.get(MASTER))


def check_pods(processes: Processes) -> None:
    """
    Raises
    ------
    UserError: the variables are of another training, or this is not the first node.
    """
    section, nodes = processes.section, processes.nodes
    name = next((name for name in NODE_RANKS if os.environ.get(name)), None)
    if name and os.environ[name] != "0":
        raise UserError(
            f"{section}.nodes is {nodes} and {name} is {os.environ[name]}, but the workflow runs on the node "
            "of rank 0 only; the others run the training's launch.sh (docs/clusters.md)."
        )
    size = os.environ.get("WORLD_SIZE") or str(nodes)
    if size not in (str(nodes), str(nodes * processes.per_node)):
        raise UserError(
            f"{section}.nodes is {nodes}, but WORLD_SIZE is {size}, neither the number of nodes nor that of "
            "processes; write as many nodes as there are pods."
        )
    port = os.environ.get(MASTER_PORT) or str(DEFAULT_PORT)
    if not port.isdecimal():
        raise UserError(
            f"{MASTER_PORT} is {port}, which is no port; write a number, such as 29500."
        )


def free_port() -> int:
    """A TCP port that nobody listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def master_address(processes: Processes) -> str:
    """The address of the first node: of the hosts, or else of the Slurm job's nodes.

    Raises
    ------
    UserError: there is neither.
    """
    section, nodes = processes.section, processes.nodes
    if processes.hosts:
        return processes.hosts[0]
    listed = os.environ.get(SLURM[1]) or os.environ.get(SLURM[2])
    number = os.environ.get(SLURM[0])
    if not listed and number:  # Snakemake's executor leaves a job little else of Slurm's variables
        found = re.search(r"\sNodeList=(\S+)", _scontrol("job", number))
        listed = found and found[1]
    if not listed:
        raise UserError(
            f"{section}.nodes is {nodes}, but this is no job of Slurm's and {section}.hosts is "
            f"empty; submit it with profiles/slurm, or name the hosts, or run it where {MASTER} is set."
        )
    names = _scontrol("hostnames", listed).split()
    if len(names) < nodes:
        raise UserError(
            f"{section}.nodes is {nodes}, but the Slurm job has {len(names)}: {listed}; ask "
            "for as many (`nodes` of the rule finetune_model in the profile)."
        )
    # Where a node's name is known to Slurm only, its address is not.
    found = re.search(r"\bNodeAddr=(\S+)", _scontrol("node", names[0]))
    return found[1] if found else names[0]


def _scontrol(*what: str) -> str:
    """What `scontrol show` prints; nothing where it fails."""
    done = subprocess.run(  # noqa: S603
        ["scontrol", "show", *what],  # noqa: S607
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return "" if done.returncode else done.stdout


def exported(environment: Mapping[str, str]) -> list[str]:
    """The lines of `Launch.setup` that set variables."""
    return [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]


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
