"""Signals, locks, leftovers and clocks: what an interruption meets."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from mindtune import files, process
from mindtune.errors import UserError
from mindtune.glue import clock, locks
from mindtune.glue import run_lock as workdir
from mindtune.glue import script_runner as job

SCRIPTS = Path(files.__file__).parents[1]


def end_of(tmp_path, main):
    """How a job ends, and what its log says."""
    with pytest.raises(SystemExit) as ended:
        job.run(SimpleNamespace(log=[str(tmp_path / "a.log")], rule="a_rule"), main)
    logging.getLogger("mindtune").handlers.clear()
    return ended.value.code, (tmp_path / "a.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_is_told_to_stop_tidies_up(tmp_path, number):
    def main(_):
        with files.writing(tmp_path / "result"):
            os.kill(os.getpid(), number)
            time.sleep(10)

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    status, said = end_of(tmp_path, main)
    assert status == 128 + number
    assert f"stopped by signal {number} ({number.name}); the same command resumes from here" in said
    assert "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.log.lock", "a.log"]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize(
    ("word", "status", "sentence"),
    [
        ("Terminated", 143, "stopped by signal 15 (SIGTERM); the same command resumes from here"),
        (
            "Killed",
            1,
            "ended by signal 9 (SIGKILL: memory ran out, most likely); give the job more",
        ),
        (
            "Bus error",
            1,
            "a process of this job was ended by signal 7 (SIGBUS); run the same command",
        ),
    ],
)
def test_a_loader_that_a_signal_ended_is_no_error_of_the_program(tmp_path, word, status, sentence):
    def main(_):
        try:
            raise RuntimeError(f"DataLoader worker (pid 7) is killed by signal: {word}. ")
        except RuntimeError as error:
            raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly") from error

    found, said = end_of(tmp_path, main)
    assert found == status and sentence in said
    assert "an error of the program" not in said


def test_a_sigterm_whose_exception_was_lost_is_told_still(tmp_path):
    """One that is raised in a destructor goes nowhere; what fails after it fails because of it."""

    def main(_):
        with contextlib.suppress(process.Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        raise RuntimeError("the loader is gone")

    status, said = end_of(tmp_path, main)
    assert status == 143 and "stopped by signal 15 (SIGTERM)" in said and "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_hangs_in_tidying_up_is_ended_and_holds_no_lock(tmp_path, number):
    hanging = textwrap.dedent(f"""
        import signal, sys, time
        from types import SimpleNamespace
        sys.path.insert(0, {str(SCRIPTS)!r})
        from mindtune import process
        from mindtune.glue import script_runner as job
        process._allowed = 0.3
        signal.signal(signal.SIGINT, signal.default_int_handler)
        def main(_):
            try:
                print("works", flush=True)
                time.sleep(60)
            finally:
                time.sleep(60)
        job.run(SimpleNamespace(log=[{str(tmp_path / "a.log")!r}], rule="a_rule"), main)
    """)
    running = subprocess.Popen([sys.executable, "-c", hanging], stdout=subprocess.PIPE)
    assert running.stdout.readline() == b"works\n"
    running.send_signal(number)
    assert running.wait(timeout=30) == -signal.SIGALRM
    running.communicate()
    with locks.held(tmp_path / ".a.log.lock", 0, print):
        pass


def test_what_takes_longer_to_stop_gets_longer():
    before = process._allowed
    with process.slow_to_stop(60):
        assert process._allowed == before + 60
    assert process._allowed == before == process.SECONDS_TO_TIDY_UP


def test_an_input_that_was_removed_meanwhile_is_named(tmp_path):
    model = tmp_path / "model"
    model.mkdir()

    def main(_):
        model.rmdir()
        raise ValueError("a library's own words")

    snakemake = SimpleNamespace(log=[str(tmp_path / "a.log")], rule="a_rule", input=[str(model)])
    with pytest.raises(SystemExit) as ended:
        job.run(snakemake, main)
    logging.getLogger("mindtune").handlers.clear()
    said = (tmp_path / "a.log").read_text()
    assert ended.value.code == 1
    assert f"{model} was removed while this ran; put it back and run the same command again" in said
    assert "an error of the program" not in said and "a library's own words" in said


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (1, "ended with status 1"),
        (-9, "was ended by signal 9 (SIGKILL: memory ran out, most likely)"),
        (137, "was ended by signal 9 (SIGKILL: memory ran out, most likely)"),
        (-15, "was ended by signal 15 (SIGTERM)"),
        (128, "ended with status 128"),
        (255, "ended with status 255"),
    ],
)
def test_how_a_program_ended_in_words(status, words):
    assert process.ended(status) == words


def test_a_job_ends_with_the_snakemake_that_started_it(tmp_path):
    """Killed alone, it leaves a job that ends itself, with a shell between the two."""
    working = textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {str(SCRIPTS)!r})
        from mindtune import files, process
        with process.stoppable(), files.writing({str(tmp_path / "result")!r}) as handle:
            process.end_with_snakemake()
            print("works", flush=True)
            time.sleep(60)
    """)
    starting = textwrap.dedent(f"""
        import os, shlex, subprocess, sys
        os.environ["MINDTUNE_SNAKEMAKE"] = str(os.getpid())
        subprocess.run(shlex.join([sys.executable, "-c", {working!r}]) + "; true", shell=True)
    """)
    snakemake = subprocess.Popen([sys.executable, "-c", starting], stdout=subprocess.PIPE)
    assert snakemake.stdout.readline() == b"works\n"
    below = psutil.Process(snakemake.pid).children(recursive=True)
    snakemake.kill()
    _, alive = psutil.wait_procs(below, timeout=60)
    snakemake.communicate()
    assert len(below) >= 2 and not alive
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_no_ancestor_is_not_watched(tmp_path, monkeypatch):
    monkeypatch.setenv("MINDTUNE_SNAKEMAKE", "999999999")
    job.run(SimpleNamespace(log=[str(tmp_path / "a.log")], rule="a_rule"), lambda _: None)


def test_a_job_waits_for_one_that_is_left_and_then_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "SECONDS_FOR_OTHERS", 0.3)
    with locks.held(tmp_path / ".a.log.lock", 0, print):
        with pytest.raises(SystemExit):
            job.run(SimpleNamespace(log=[str(tmp_path / "a.log")], rule="a_rule"), print)
        assert not (tmp_path / "a.log").exists()  # its log is the other's
    logging.getLogger("mindtune").handlers.clear()


def test_a_lock_names_its_holder(tmp_path):
    heard = []
    with (
        locks.held(tmp_path / "lock", 0, heard.append),
        pytest.raises(locks.Held, match=f"process {os.getpid()} of "),
        locks.held(tmp_path / "lock", 0.2, heard.append),
    ):
        pass
    assert len(heard) == 1
    with locks.held(tmp_path / "lock", 0, heard.append):
        assert len(heard) == 1


def test_of_two_writers_the_older_one_fails_and_mixes_nothing(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(FileNotFoundError), files.writing(path) as first:
        first.write("old")
        with files.writing(path) as second:
            second.write("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_removed_by_the_next_of_that_name(tmp_path):
    left, other = tmp_path / ".a[1].00000000.partial", tmp_path / ".a[1]2.00000000.partial"
    left.mkdir()
    other.touch()
    with files.writing(tmp_path / "a[1]") as handle:
        handle.write("x")
    assert not left.exists() and other.exists()


@pytest.fixture
def state(tmp_path, monkeypatch):
    """A `.snakemake` with a lock that was left behind."""
    opened = []
    monkeypatch.setattr(workdir, "_open", opened)
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "0.output.lock").write_text("results/a\n")
    yield tmp_path
    for handle in opened:
        os.close(handle)


def test_a_dead_runs_lock_is_removed(state):
    assert "An earlier run was killed" in workdir.enter(state)
    assert not list((state / "locks").iterdir())


def test_a_lock_is_left_alone_while_somebody_is_there(state):
    (state / "locks" / "0.output.lock").unlink()
    assert workdir.enter(state) is None
    (state / "locks" / "0.output.lock").touch()
    assert f"at work here already (process {os.getpid()} of" in workdir.enter(state)
    assert (state / "locks" / "0.output.lock").exists()


def test_a_lock_is_left_alone_when_another_machine_was_there(state):
    (state / workdir.NAME).write_text(json.dumps({"pid": 1, "user": "a", "host": "elsewhere"}))
    assert workdir.enter(state) is None
    assert (state / "locks" / "0.output.lock").exists()


def test_a_file_from_the_future_is_refused_a_skewed_clock_is_not(tmp_path):
    path = tmp_path / "a file"
    path.touch()
    os.utime(path, (time.time() + 30,) * 2)
    clock.refuse_future([path])
    os.utime(path, (time.time() + 3600,) * 2)
    with pytest.raises(UserError, match=r"is dated .* type `touch '.*a file'`"):
        clock.refuse_future([path])


def test_a_disk_without_room_for_snakemakes_own_records_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(workdir.shutil, "disk_usage", lambda _: SimpleNamespace(free=3))
    with pytest.raises(UserError, match="the disk is full \\(3 bytes are free in"):
        workdir.enter(tmp_path / ".snakemake")
    assert not (tmp_path / ".snakemake").exists()


def test_a_file_in_the_place_of_snakemakes_directory_is_told(tmp_path):
    (tmp_path / ".snakemake").touch()
    with pytest.raises(UserError, match=r"\.snakemake can't be written: File exists"):
        workdir.enter(tmp_path / ".snakemake")
