"""Trackers follow a training from the rows of its loss.csv; no result depends on them."""

import subprocess
import sys
from pathlib import Path

import pytest
from mindtune.engines.loss_table import LossTable
from mindtune.errors import UserError
from mindtune.glue import settings_reading
from mindtune.settings import load
from mindtune.trackers import TRACKERS, Followers
from tracked import in_table, same, shown

SCRIPTS = Path(__file__).parents[2] / "scripts"
SETTINGS = {"engine": "hf", "train": {"lr": 1e-5}}


def row(iteration, loss=None):
    """A line of loss.csv as an engine appends it; each second one has a held-out loss."""
    return {
        "iteration": iteration,
        "consumed_samples": 24 * iteration,
        "lr": repr(1e-5 / iteration),
        "loss": repr(1 / iteration) if loss is None else repr(loss),
        "grad_norm": repr(0.5),
        "ms_per_iteration": "12.5",
        "samples_per_second": "",
        "held_out_loss": repr(2 / iteration) if iteration % 2 == 0 else "",
    }


def train(save_dir, begun, until, names=("tensorboard",), loss=None):
    """What an engine does between two interruptions."""
    followers = Followers(names, save_dir / "trackers", "baseline", SETTINGS)
    table = LossTable(save_dir / "loss.csv", followers)
    table.begin(begun)
    for iteration in range(begun + 1, until + 1):
        table.append(row(iteration, loss))
    followers.close()


def test_tensorboard_shows_the_rows_of_the_table(tmp_path):
    train(tmp_path, 0, 7)
    assert same(shown(tmp_path), in_table(tmp_path))
    assert list(shown(tmp_path)["held_out_loss"]) == [2, 4, 6]
    assert "samples_per_second" not in shown(tmp_path)


def test_iterations_that_ran_twice_are_shown_once(tmp_path):
    train(tmp_path, 0, 7, loss=9.0)  # killed at 7, whole checkpoint at 4
    train(tmp_path, 4, 10)
    assert same(shown(tmp_path), in_table(tmp_path))
    assert list(shown(tmp_path)["loss"]) == list(range(1, 11))


def test_a_tracker_switched_on_later_is_told_what_came_before(tmp_path):
    train(tmp_path, 0, 4, names=())
    train(tmp_path, 4, 6)
    assert same(shown(tmp_path), in_table(tmp_path))


def test_rows_are_there_while_the_training_runs(tmp_path):
    followers = Followers(["tensorboard"], tmp_path / "trackers", "baseline", SETTINGS)
    table = LossTable(tmp_path / "loss.csv", followers)
    table.begin(0)
    table.append(row(1))
    followers.trackers["tensorboard"].writer.flush()
    assert list(shown(tmp_path)["loss"]) == [1]
    followers.close()


@pytest.mark.parametrize("name", ["swanlab", "wandb"])
def test_the_others_write_their_files_without_a_network(tmp_path, name):
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from test_trackers import train\n"
        "place = Path(sys.argv[1])\n"
        f"train(place, 0, 4, [{name!r}]); train(place, 2, 6, [{name!r}])\n"
    )
    here = Path(__file__).resolve()
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path, here.parent, here.parents[1], SCRIPTS],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "fails" not in done.stderr
    kept = sorted((tmp_path / "trackers" / name).rglob(f"*.{name}"))
    assert len(kept) == 2  # one for each time that it was taken up
    assert all(b"held_out_loss" in path.read_bytes() for path in kept)


def test_a_tracker_that_fails_is_left_out_with_a_warning(tmp_path, caplog):
    (tmp_path / "trackers").mkdir()
    (tmp_path / "trackers" / "tensorboard").write_text("in its way")
    train(tmp_path, 0, 3)
    assert "tensorboard fails (FileExistsError" in caplog.text
    assert "the training goes on without it" in caplog.text
    assert list(in_table(tmp_path)["loss"]) == [1, 2, 3]


def test_trackers_are_among_no_settings_of_a_result():
    raw = {"train": {"report_to": ["wandb", "tensorboard"]}}
    configuration = load(raw)
    assert configuration.typed().train.report_to == ["tensorboard", "wandb"]
    assert configuration.common == load({}).common


def test_a_tracker_that_is_not_installed_is_said_before_anything_runs(monkeypatch):
    monkeypatch.setattr("mindtune.trackers.find_spec", lambda name: None)
    raw = {"experiments": {"a": {"train": {"report_to": ["swanlab"]}}, "b": {}}}
    with pytest.raises(UserError) as error:
        settings_reading.read_configuration(raw)
    assert (
        "train.report_to names swanlab, but the package swanlab is not installed; `pip install -r "
        "envs/trackers.txt`, or take it out." in str(error.value)
    )


def test_trackers_can_not_be_swept():
    with pytest.raises(UserError, match=r"grid.train.report_to can't be swept: no result depends"):
        load({"grid": {"train.report_to": [["wandb"], []]}})


def test_every_tracker_is_in_the_list_of_packages():
    listed = (Path(__file__).parents[2] / "envs" / "trackers.txt").read_text(encoding="utf-8")
    assert all(f"\n{name}==" in listed for name in TRACKERS)
