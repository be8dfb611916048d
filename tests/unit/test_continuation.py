"""Which iterations are the same under other settings, and what happens to a save_dir then."""

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

import clean
import pytest
from filelock import FileLock
from mindtune.engines import training_directory as savedir
from mindtune.engines.continuation import continuation
from mindtune.engines.loss_table import COLUMNS, LOSS, LossTable
from mindtune.engines.training_directory import claimed, fingerprint
from mindtune.errors import UserError

TRAIN = {
    "train_iters": 100, "save_interval": 50, "eval_interval": 50, "eval_iters": 2, "lr": 1e-3,
    "min_lr": 0.0, "lr_decay_style": "constant", "lr_warmup_fraction": 0.0, "seed": 42,
    "save_optim": True,
}  # fmt: skip
WARM = {"lr_warmup_fraction": 0.1}


def settings(changes):
    return {"engine": "hf", "code": "a", "train": TRAIN | changes}


@pytest.mark.parametrize(
    ("old", "new", "iteration", "reason"),
    [
        ({}, {"train_iters": 200}, 100, ""),
        ({}, {"train_iters": 60}, 59, "held-out data would have been looked at otherwise"),
        ({}, {"train_iters": 50}, 50, ""),
        ({"train_iters": 90}, {"train_iters": 200}, 89, "otherwise at iteration 90"),
        ({"train_iters": 90, "eval_iters": 0}, {"train_iters": 200, "eval_iters": 0}, 90, ""),
        ({}, {"eval_iters": 1}, 49, "otherwise at iteration 50"),
        ({}, {"eval_interval": 25}, 24, "otherwise at iteration 25"),
        ({}, {"save_interval": 7}, 100, ""),
        (WARM, WARM | {"train_iters": 200}, 1, "; with train.lr_decay_style: constant"),
        (WARM, {"lr_warmup_fraction": 0.05, "train_iters": 200}, 100, ""),
        ({"lr_decay_style": "cosine"}, {"lr_decay_style": "cosine", "train_iters": 200}, 1,
         "iteration 2 would have had a learning rate of"),
        ({"lr_decay_style": "linear"}, {"lr_decay_style": "linear", "train_iters": 200}, 1,
         "iteration 2 would have had"),
        ({}, {"lr": 2e-3}, 0, "iteration 1 would have had a learning rate of 0.002 and not 0.001"),
        ({}, {"min_lr": 1e-5}, 100, ""),
        ({}, {"seed": 1, "train_iters": 200}, 0, "another train.seed"),
        ({"save_optim": False}, {"save_optim": False, "train_iters": 200}, 0, "without train.save_"),
    ],
)  # fmt: skip
def test_the_last_iteration_that_is_the_same(old, new, iteration, reason):
    found = continuation(settings(old), settings(new))
    assert found.iteration == iteration
    assert reason in found.reason and bool(reason) == bool(found.reason), found.reason


def test_other_code_or_data_have_nothing_in_common():
    found = continuation(settings({}), settings({"train_iters": 200}) | {"code": "b"})
    assert found.iteration == 0 and "another code" in found.reason
    assert found.changed == "code a -> b, train.train_iters 100 -> 200"


def filled(place, iterations):
    for iteration in iterations:
        rank = place / f"iter_{iteration:07d}" / "mp_rank_00"
        rank.mkdir(parents=True, exist_ok=True)
        if not (rank / "model_optim_rng.pt").exists():
            (rank / "model_optim_rng.pt").write_text(str(iteration))
    (place / "latest_checkpointed_iteration.txt").write_text(str(iterations[-1]))
    table = LossTable(place / LOSS)
    table.begin(0)
    for n in range(1, iterations[-1] + 1):
        table.append(dict.fromkeys(COLUMNS, "") | {"iteration": n})


def names(place):
    return sorted(path.name for path in place.glob("iter_*"))


def content(place):
    """All files of a directory, by their names in it."""
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file()
    }


A, B, C = settings({}), settings({"lr": 2e-3}), settings({"seed": 1})


@pytest.fixture(params=["a directory", "a link"])
def save_dir(request, tmp_path):
    """A save_dir that is not there yet, or a link to an empty directory on another disk."""
    place = tmp_path / "results" / "baseline" / "save_dir"
    place.parent.mkdir(parents=True)
    if request.param == "a link":
        (tmp_path / "scratch" / "of me").mkdir(parents=True)
        place.symlink_to(tmp_path / "scratch" / "of me")
    yield place
    assert place.is_symlink() == (request.param == "a link")


def trained(save_dir, wanted, iterations):
    """Train as if; returns what is then in save_dir."""
    with claimed(save_dir, wanted):
        filled(save_dir, iterations)
        return content(save_dir)


def test_settings_that_come_back_find_their_checkpoints_again(save_dir):
    first = trained(save_dir, A, [50, 100])
    second = trained(save_dir, B, [50])
    assert first != second
    for _ in range(2):
        with claimed(save_dir, A):
            assert content(save_dir) == first
        with claimed(save_dir, B):
            assert content(save_dir) == second
    aside = savedir.place_of(save_dir)
    kept = aside.with_name(f"{aside.name}.superseded")
    assert [path.name for path in kept.iterdir()] == [fingerprint(A)]
    if save_dir.is_symlink():  # nothing has come to this disk
        assert [path.name for path in save_dir.parent.iterdir()] == ["save_dir"]


def test_what_failed_before_its_first_checkpoint_displaces_nothing(save_dir):
    first = trained(save_dir, A, [50, 100])
    for failing in (B, C, B, settings({"seed": 2})):
        with contextlib.suppress(ValueError), claimed(save_dir, failing):
            raise ValueError
    with claimed(save_dir, A):
        assert content(save_dir) == first


def test_a_check_that_fails_moves_nothing(save_dir):
    trained(save_dir, A, [50, 100])
    before = content(save_dir.parents[2])
    begun = []

    def check(iteration):
        begun.append(iteration)
        raise UserError("no such device")

    for wanted in (A, B, settings({"train_iters": 200})):
        with pytest.raises(UserError, match="no such device"), claimed(save_dir, wanted, check):
            pass
    assert begun == [100, 0, 100]
    after = content(save_dir.parents[2])
    assert after == before


def killed_before_each_change(tmp_path, prepared, wanted):
    """Yield copies of `prepared`, each left by a claim that was killed before another change to it."""
    changes = ("os.rename", "os.mkdir", "os.link", "os.rmdir", "os.remove", "shutil.copyfile")
    for number in range(1, 100):
        place = tmp_path / f"killed {number}"
        shutil.copytree(prepared, place, symlinks=True)
        child = os.fork()
        if not child:
            left = number

            def kill(event, _):
                nonlocal left
                left -= event in changes
                if not left:
                    os._exit(9)

            sys.addaudithook(kill)
            with contextlib.suppress(BaseException), claimed(place / "save_dir", wanted):
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        status = os.waitstatus_to_exitcode(status)
        assert status in (0, 9)
        if not status:
            assert number > 3
            return
        yield place / "save_dir"


LONGER = settings({"train_iters": 200})


@pytest.mark.parametrize("wanted", [A, B, LONGER], ids=["taken up", "new", "continued"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of the fork
def test_a_kill_at_any_moment_loses_nothing(tmp_path, wanted):
    prepared = tmp_path / "prepared" / "save_dir"
    first = trained_at(prepared, A, [50, 100])
    other = trained_at(prepared, C, [50])
    if wanted is LONGER:
        with claimed(prepared, A):
            pass
    for place in killed_before_each_change(tmp_path, prepared.parent, wanted):
        with claimed(place, wanted):
            if wanted is A:
                assert content(place) == first
            else:
                assert names(place) == (
                    ["iter_0000050", "iter_0000100"] if wanted is LONGER else []
                )
        for settings_, expected in ((C, other), (A, first), (C, other)):
            with claimed(place, settings_):
                assert content(place) == expected
        assert not list(place.parent.glob(".*.partial"))


def trained_at(place, wanted, iterations):
    place.parent.mkdir(exist_ok=True)
    return trained(place, wanted, iterations)


def test_a_longer_training_begins_with_the_checkpoints_of_the_shorter_which_stay(tmp_path):
    place = tmp_path / "save_dir"
    ninety = settings({"train_iters": 90})
    first = trained(place, ninety, [50, 90])
    with claimed(place, settings({"train_iters": 200})):
        assert names(place) == ["iter_0000050"]
        assert (place / "latest_checkpointed_iteration.txt").read_text() == "50"
        assert len((place / "loss.csv").read_text().splitlines()) == 51
        assert json.loads((place / "settings.json").read_text())["train"]["train_iters"] == 200
        filled(place, [50, 100, 150, 200])
    second = content(place)
    file = "iter_0000050/mp_rank_00/model_optim_rng.pt"
    aside = tmp_path / "save_dir.superseded" / fingerprint(ninety)
    assert (aside / file).samefile(place / file)  # it takes no room twice
    with claimed(place, ninety):
        assert content(place) == first
    with claimed(place, settings({"train_iters": 200})):
        assert content(place) == second


def test_the_best_beginning_is_found_wherever_it_was_put_aside(tmp_path):
    place = tmp_path / "save_dir"
    trained(place, A, [50, 100])
    trained(place, C, [50])
    with claimed(place, settings({"train_iters": 200})):
        assert names(place) == ["iter_0000050", "iter_0000100"]


def test_a_save_dir_whose_settings_cannot_be_read_is_put_aside_every_time(tmp_path):
    place = tmp_path / "save_dir"
    for _ in range(2):
        filled(place, [50])
        (place / "settings.json").write_text('{"fingerp')
        with claimed(place, A):
            assert names(place) == []
    for name in ("unknown", "unknown-2"):
        assert names(tmp_path / "save_dir.superseded" / name) == ["iter_0000050"]


@pytest.mark.parametrize("name", ["settings.json", "latest_checkpointed_iteration.txt"])
def test_a_pipe_in_a_save_dir_is_said_and_nothing_hangs(tmp_path, name):
    trained(tmp_path / "save_dir", A, [50])
    (tmp_path / "save_dir" / name).unlink()
    os.mkfifo(tmp_path / "save_dir" / name)
    with (
        pytest.raises(UserError, match=f"{name} is a named pipe, but must be a file"),
        claimed(tmp_path / "save_dir", B),
    ):
        pass


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("gone/of me", "is a link to .*gone/of me, which is in no directory that is there"),
        ("save_dir", "save_dir is a link"),
        ("a file", "a file is something else; move it"),
    ],
)
def test_a_link_that_leads_to_no_directory_is_said(tmp_path, target, words):
    (tmp_path / "a file").touch()
    (tmp_path / "save_dir").symlink_to(tmp_path / target)
    with pytest.raises(UserError, match=words), claimed(tmp_path / "save_dir", A):
        pass


def test_a_link_whose_directory_was_purged_gets_a_new_one(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "save_dir").symlink_to(tmp_path / "scratch" / "of me")
    with claimed(tmp_path / "save_dir", A):
        assert (tmp_path / "scratch" / "of me" / "settings.json").is_file()


def test_a_save_dir_that_cannot_be_renamed_is_said(tmp_path, monkeypatch):
    place = tmp_path / "save_dir"
    first = trained(place, A, [50])

    def busy(*_):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "rename", busy)
    with (
        pytest.raises(UserError, match=r"busy.*a mount point, make save_dir a link"),
        claimed(place, B),
    ):
        pass
    assert content(place) == first


def test_a_base_checkpoint_or_a_file_that_is_not_whole_is_named(tmp_path):
    (tmp_path / "model_optim_rng.pt").write_bytes(b"PK cut")
    with pytest.raises(
        UserError, match=r"model_optim_rng\.pt is not whole .*; remove the checkpoint"
    ):
        savedir.content_of_checkpoint(tmp_path)
    with pytest.raises(UserError, match=r"config\.json can't be read: No such file"):
        savedir.content_of({"config": tmp_path / "config.json"})


# --- scripts/clean.py ------------------------------------------------------


@pytest.fixture
def two_aside(save_dir):
    for wanted in (A, B, C):
        trained(save_dir, wanted, [50, 100])
    return save_dir


def cleaned(save_dir, capsys, *arguments):
    status = clean.main(["--results", str(save_dir.parents[1]), *arguments])
    said = capsys.readouterr()
    return status, said.out + said.err


def test_what_is_put_aside_is_listed_with_size_and_settings(two_aside, capsys):
    status, said = cleaned(two_aside, capsys)
    assert status == 0
    lines = {line.split()[0]: line for line in said.splitlines()}
    assert set(lines) == {f"baseline/{fingerprint(one)}" for one in (A, B)}
    line = lines[f"baseline/{fingerprint(B)}"]
    assert "0.000 GB, 2 checkpoints to iteration 100" in line
    assert line.endswith("now -> there: train.lr 0.001 -> 0.002, train.seed 1 -> 42")


def test_only_what_is_named_is_removed(two_aside, capsys):
    current = content(two_aside)
    name = f"baseline/{fingerprint(A)}"
    status, said = cleaned(two_aside, capsys, name)  # nobody there to ask
    assert status == 1 and "nothing is removed: say --yes" in said
    assert cleaned(two_aside, capsys, "--yes", name) == (0, f"removed {name}\n")
    with claimed(two_aside, B):
        assert names(two_aside) == ["iter_0000050", "iter_0000100"]
    with claimed(two_aside, A):
        assert names(two_aside) == []
    with claimed(two_aside, C):
        assert content(two_aside) == current


def test_everything_may_be_removed_and_a_stranger_may_not(two_aside, capsys):
    current = content(two_aside)
    status, said = cleaned(two_aside, capsys, "--yes", "baseline/other")
    assert status == 1 and "baseline/other is not put aside here" in said
    with FileLock(two_aside.resolve().with_name(f".{two_aside.resolve().name}.lock")):
        status, said = cleaned(two_aside, capsys, "--yes", "--all")
        assert status == 1 and "a training is writing to" in said
    assert cleaned(two_aside, capsys, "--yes", "--all")[0] == 0
    status, said = cleaned(two_aside, capsys)
    assert (status, said.split(" below")[0]) == (0, "Nothing is put aside")
    assert content(two_aside) == current
