"""Which iterations are the same under other settings, and what happens to a save_dir then."""

import json

import pytest
from mindtune import savedir
from mindtune.continuation import continuation
from mindtune.engines.log_table import COLUMNS, LOSS, LossTable

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
        rank.mkdir(parents=True)
        (rank / "model_optim_rng.pt").write_text(str(iteration))
    (place / "latest_checkpointed_iteration.txt").write_text(str(iterations[-1]))
    table = LossTable(place / LOSS)
    table.begin(0)
    for n in range(1, iterations[-1] + 1):
        table.append(dict.fromkeys(COLUMNS, "") | {"iteration": n})


def names(place):
    return sorted(path.name for path in place.glob("iter_*"))


def test_a_save_dir_is_cut_back_to_what_is_the_same(tmp_path):
    place, aside = tmp_path / "save_dir", tmp_path / "save_dir.superseded"
    with savedir.claimed(place, settings({"train_iters": 90})):
        filled(place, [50, 90])
    with savedir.claimed(place, settings({"train_iters": 200})):
        assert names(place) == ["iter_0000050"] and names(aside) == ["iter_0000090"]
        assert (place / "latest_checkpointed_iteration.txt").read_text() == "50"
        assert len((place / "loss.csv").read_text().splitlines()) == 51
        found = json.loads((place / "settings.json").read_text())
        assert found["train"]["train_iters"] == 200


def test_a_save_dir_whose_settings_cannot_be_read_is_put_aside(tmp_path):
    place = tmp_path / "save_dir"
    place.mkdir()
    filled(place, [50])
    (place / "settings.json").write_text('{"fingerp')
    with savedir.claimed(place, settings({})):
        assert names(place) == [] and names(tmp_path / "save_dir.superseded") == ["iter_0000050"]
