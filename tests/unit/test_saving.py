"""Saving beside training: the same bytes, whole checkpoints only, and errors that are heard of."""

import contextlib
import errno
import os
import threading
from types import SimpleNamespace

import killed_saves
import psutil
import pytest
import torch
from forking import loaded_forks
from mindtune.divergence import Diverged
from mindtune.engines.hf import beside
from mindtune.engines.hf.beside import Beside, CalledOff, HostCopies, allocated, tensors_in
from mindtune.engines.hf.checkpoints import Checkpoints
from mindtune.engines.loss_table import COLUMNS, LossTable
from mindtune.errors import UserError
from mindtune.files import read_json
from mindtune.settings.typed import typed
from unit.test_finetune import place, train  # noqa: F401 - a fixture

FILE = "mp_rank_00/model_optim_rng.pt"
CPU = torch.device("cpu")


def contents(save_dir):
    """All checkpoints' bytes, by iteration."""
    return {path.name: (path / FILE).read_bytes() for path in sorted(save_dir.glob("iter_*"))}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_thread_writes_the_bytes_that_were_there_when_the_save_was_due(
    place, tmp_path, monkeypatch, caplog, precision  # noqa: F811
):  # fmt: skip
    """The thread begins only when the next iteration is done; the other way there is no thread."""
    machine = {"precision": precision}
    later = threading.Event()
    write = Checkpoints._write
    writers = []

    def late(self, *arguments):
        writers.append(threading.current_thread())
        assert later.wait(600)
        write(self, *arguments)

    def look(self):
        if self.future is not None:
            later.set()  # at the end of the iteration after the one with the save

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_write", late)
        patch.setattr(Beside, "look", look)
        train(place, tmp_path / "beside", machine=machine)
    assert threading.main_thread() not in writers and len(writers) == 2
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**20))
    monkeypatch.setattr(Checkpoints, "_write", lambda self, *arguments: (
        writers.append(threading.current_thread()), write(self, *arguments)))  # fmt: skip
    train(place, tmp_path / "waiting", machine=machine)
    assert writers[2:] == [threading.main_thread()] * 2
    assert caplog.text.count("training waits while a checkpoint is written") == 1
    assert contents(tmp_path / "beside") == contents(tmp_path / "waiting")
    assert len(contents(tmp_path / "beside")) == 2


@pytest.mark.parametrize("amount", [6, pytest.param(20, marks=pytest.mark.long)])
def test_kills_while_a_checkpoint_is_written_end_in_the_same_bytes(place, tmp_path, amount):  # noqa: F811
    """At any of the saving thread's writes, syncs, renames and removals (`keep_checkpoints: last`)."""
    process = loaded_forks().Process(target=killed_saves.main, args=(place, tmp_path, amount, 1))
    process.start()
    process.join()
    assert process.exitcode == 0
    kills = read_json(tmp_path / "kills.json")
    print(kills)
    assert len(kills) == amount
    assert all(kill["killed"] and kill["same"] for kill in kills)
    for kill in kills:
        newest = max(kill["whole"], default=0)
        assert newest <= kill["lines"], "loss.csv is behind a finished checkpoint"
        assert kill["tracked"] in {newest, newest - 1}
    assert {max(kill["whole"], default=0) for kill in kills} >= {0, 1, 2}


def full_disk(monkeypatch):
    """From now on threads find the disk full."""
    write = os.pwrite

    def pwrite(*arguments):
        if threading.current_thread() is not threading.main_thread():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*arguments)

    monkeypatch.setattr(os, "pwrite", pwrite)


@pytest.mark.parametrize("save_interval", [2, 4])
def test_a_disk_that_is_full_ends_the_training_with_a_sentence(
    place, tmp_path, monkeypatch, save_interval  # noqa: F811
):  # fmt: skip
    whole = train(place, tmp_path / "whole", save_interval=save_interval)
    with monkeypatch.context() as patch:
        full_disk(patch)
        with pytest.raises(UserError, match="cannot be written: No space left on device"):
            train(place, tmp_path / "a", save_interval=save_interval)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["loss.csv"]
    assert train(place, tmp_path / "a", save_interval=save_interval) == whole


def fails():
    raise UserError("the disk is full")


def test_what_failed_beside_the_training_is_raised_by_whatever_comes_next():
    for method in (Beside.look, Beside.wait, lambda one: one.begin(print)):
        one = Beside()
        one.begin(fails)
        while not one.future.done():
            pass
        with pytest.raises(UserError, match="the disk is full"):
            method(one)
        one.look()  # it is said once
        one.wait()


def test_the_end_of_a_training_waits_and_an_error_there_is_not_lost():
    for error in (
        None,
        Diverged(3, "nan", typed("train", {"lr": 1.0, "clip_grad": 0.0})),
        ValueError("a loader's"),
    ):
        done, may = [], threading.Event()

        def work(done=done, may=may):
            may.wait(60)
            done.append(True)

        with pytest.raises(type(error)) if error else contextlib.nullcontext(), Beside() as one:
            one.begin(work)
            threading.Timer(0.2, may.set).start()
            if error:
                raise error
        assert done
        with pytest.raises(UserError, match="the disk is full"), Beside() as one:
            one.begin(fails)
            if error:
                raise error


def test_a_training_that_is_stopped_does_not_wait_for_a_long_save(monkeypatch):
    monkeypatch.setattr(beside, "SECONDS_TO_FINISH", 0.0)
    ended = []

    def endless():
        try:
            while True:
                one.progress(1, 2)
        except CalledOff:
            ended.append(True)
            raise

    with pytest.raises(KeyboardInterrupt), Beside() as one:
        one.begin(endless)
        raise KeyboardInterrupt
    assert ended


def test_a_save_that_fails_as_a_training_is_stopped_is_in_the_log(caplog):
    with pytest.raises(KeyboardInterrupt), Beside() as one:
        one.begin(fails)
        raise KeyboardInterrupt
    assert "the newest checkpoint could not be saved: the disk is full" in caplog.text


def some_content():
    return {"tensors": {"a": torch.arange(6.0).view(2, 3)}, "extra": [{"step": torch.tensor(1.0)}, 5]}  # fmt: skip


def test_copies_change_with_no_later_step():
    content = some_content()
    copies = HostCopies().of(content, CPU)
    content["tensors"]["a"].add_(1)
    assert torch.equal(copies["tensors"]["a"], torch.arange(6.0).view(2, 3))
    assert copies["extra"][1] == 5 and copies["extra"][0]["step"] is not content["extra"][0]["step"]


@pytest.mark.parametrize("free", [0, 1])
def test_host_memory_is_looked_at_first(monkeypatch, caplog, free):
    content = {"a": torch.zeros(1_000_000)}  # 4 MB, a tenth of that, and 256 MiB
    available = 4_400_000 + (1 << 28) - 1 + free
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
    copies = HostCopies()
    assert [copies.fit(content, CPU), copies.fit(content, CPU)] == [bool(free)] * 2
    said = "need 272,835,456 bytes of host memory, but 272,835,455 are free: training waits"
    assert caplog.text.count(said) == (0 if free else 1)


def test_what_a_control_group_leaves_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5000))
    own, job = tmp_path / "own", tmp_path / "groups/slurm/job"
    own.write_text("1:name=systemd:/elsewhere\n0::/slurm/job\n")

    def limited(group, limit):
        group.mkdir(parents=True, exist_ok=True)
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text("3000\n")
        (group / "memory.stat").write_text("anon 1\ninactive_file 200\n")

    def free():
        return beside.free_memory(tmp_path / "groups", own)

    assert free() == 5000
    limited(job, "max")
    assert free() == 5000
    limited(job, 4000)
    assert free() == 1200
    limited(job.parent, 3500)
    assert free() == 700
    own.unlink()
    assert free() == 5000
    assert 0 < beside.free_memory() <= 5000


def test_pinned_memory_is_got_once_and_is_never_written_to_while_it_is_read(monkeypatch):
    """A CUDA device's way, played on the CPU."""
    made, synchronized = [], []
    empty = torch.empty

    def pinned(shape, dtype, pin_memory):
        assert pin_memory
        made.append(shape)
        return empty(shape, dtype=dtype)

    monkeypatch.setattr(torch, "empty", pinned)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronized.append)
    cuda, copies, content = torch.device("cuda"), HostCopies(), some_content()
    assert copies.ready(content, cuda)
    first = copies.of(content, cuda)
    content["tensors"]["a"].add_(1)
    assert torch.equal(first["tensors"]["a"], torch.arange(6.0).view(2, 3))
    assert copies.ready(content, cuda)
    second = copies.of(content, cuda)
    assert second["tensors"]["a"] is first["tensors"]["a"]
    assert torch.equal(second["tensors"]["a"], content["tensors"]["a"])
    assert made == [(2, 3), ()] and synchronized == [cuda, cuda]


def test_a_host_that_gives_no_pinned_memory_saves_as_before(caplog):
    """As here: this torch knows no device for which memory could be pinned."""
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    copies = HostCopies()
    assert not copies.ready(some_content(), torch.device("cuda"))
    assert not copies.ready(some_content(), torch.device("cuda"))
    assert caplog.text.count("): training waits while") == 1


def test_pinned_memory_is_counted_as_torch_rounds_it():
    sizes = [
        allocated(tensor, True) for _, tensor in tensors_in([torch.zeros(n) for n in (0, 1, 8, 9)])
    ]
    assert sizes == [0, 4, 32, 64]


def test_a_loss_table_of_an_earlier_version_is_gone_on_with(tmp_path):
    path = tmp_path / "loss.csv"
    path.write_text(
        ",".join(COLUMNS[:-1]) + "\n1,4,0.1,2.0,1.0,9.5,8.00,\n2,8,0.1,1.5,1.0,9.5,8.00,1.5\n3,12"
    )
    table = LossTable(path)
    table.begin(2)
    table.append(dict.fromkeys(COLUMNS, "7"))
    assert path.read_text().splitlines() == [
        ",".join(COLUMNS), "1,4,0.1,2.0,1.0,9.5,8.00,,", "2,8,0.1,1.5,1.0,9.5,8.00,1.5,",
        ",".join("7" * len(COLUMNS)),
    ]  # fmt: skip
