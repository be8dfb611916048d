"""`keep_checkpoints: last` removes what is older than a whole checkpoint, and nothing else."""

import shutil

import pytest
from mindtune.checkpoint.megatron import iteration_name, track
from mindtune.engines.pruning import keep_last
from mindtune.engines.superseded import Generation


@pytest.fixture
def save_dir(tmp_path):
    """Checkpoints of iterations 2, 4 and 6, of which 6 is tracked."""
    place = tmp_path / "save_dir"
    for iteration in (2, 4, 6):
        rank = place / iteration_name(iteration) / "mp_rank_00"
        rank.mkdir(parents=True)
        (rank / "model_optim_rng.pt").write_bytes(b"weights")
    (place / "loss.csv").write_text("iteration\n")
    track(place, 6)
    return place


def there(save_dir):
    return sorted(path.name for path in save_dir.iterdir())


OTHERS = ["latest_checkpointed_iteration.txt", "loss.csv"]


def test_older_ones_go(save_dir):
    keep_last(save_dir, 6)
    assert there(save_dir) == ["iter_0000006", *OTHERS]
    assert Generation.read(save_dir).newest(6) == 6


def test_later_ones_stay(save_dir):
    keep_last(save_dir, 4)
    assert there(save_dir) == ["iter_0000004", "iter_0000006", *OTHERS]


@pytest.mark.parametrize("why", ["not tracked", "not there", "empty"])
def test_nothing_goes_before_a_newer_one_is_whole(save_dir, why):
    if why == "not tracked":
        track(save_dir, 4)
    else:
        shutil.rmtree(save_dir / "iter_0000006" / ("" if why == "not there" else "mp_rank_00"))
    before = there(save_dir)
    keep_last(save_dir, 6)
    assert there(save_dir) == before
    assert {2, 4} <= set(Generation.read(save_dir).saved)


def test_a_removal_that_is_broken_off_is_finished_by_the_next(save_dir, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mindtune.engines.superseded.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        keep_last(save_dir, 6)
    # What is half gone is nothing to resume from.
    assert Generation.read(save_dir).saved == (6,)
    assert Generation.read(save_dir).newest(5) == 0
    monkeypatch.undo()
    keep_last(save_dir, 6)
    assert there(save_dir) == ["iter_0000006", *OTHERS]


def test_what_cannot_be_removed_stays_with_a_warning(save_dir, monkeypatch, caplog):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mindtune.engines.superseded.shutil.rmtree", refused)
    keep_last(save_dir, 6)
    assert "can't be removed (Permission denied); remove all but iter_0000006" in caplog.text
