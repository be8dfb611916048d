"""Starting programs: a script that shows all, run on one node or several, with its lines watched.

A launch is written to a `launch.sh` of its own directory and run from there, so that what ran can be
read, and run again by hand. It starts torchrun directly. What a program's end is worth is for the
caller to judge, by what is on the disk then.
"""

import ctypes
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

Heard = Callable[[str], None]
DEFAULT_PORT = 6000
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
        lines += ["set -eu", 'node_rank="${1:-${SLURM_NODEID:-0}}"', *self.setup]
        lines += [f"cd {shlex.quote(str(self.directory.resolve()))}", self._command()]
        return "\n".join(lines) + "\n"

    def _command(self) -> str:
        words = shlex.join([*self.program, *self.arguments])
        if self.processes:
            return f'exec {self._torchrun(self.processes)} --node_rank "$node_rank" {words}'
        return f"exec {shlex.quote(str(self.python))} {words}"

    def _torchrun(self, processes: Processes) -> str:
        several = processes.nodes > 1
        master = master_address(processes) if several else "localhost"
        port = processes.port or (DEFAULT_PORT if several else free_port())
        return shlex.join(
            [
                *(str(self.python), "-m", "torch.distributed.run"),
                *("--nproc_per_node", str(processes.per_node), "--nnodes", str(processes.nodes)),
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
        nodes = self.processes.nodes if self.processes else 1
        if nodes == 1:
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
    listed = os.environ.get("SLURM_JOB_NODELIST") or os.environ.get("SLURM_NODELIST")
    number = os.environ.get("SLURM_JOB_ID")
    if not listed and number:  # Snakemake's executor leaves a job little else of Slurm's variables
        found = re.search(r"\sNodeList=(\S+)", _scontrol("job", number))
        listed = found and found[1]
    if not listed:
        raise UserError(
            f"{section}.nodes is {nodes}, but this is no job of Slurm's and {section}.hosts is "
            "empty; submit it with profiles/slurm, or name the hosts."
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
