"""What other code made: a save_dir is left until its user decides, and what decides over a job."""

import json

import pytest
from mindtune.engines import training_directory
from mindtune.engines.loss_table import COLUMNS, LOSS
from mindtune.engines.training_directory import adopt, adoptions, claimed, clear, held
from mindtune.errors import UserError
from mindtune.glue import made
from mindtune.glue.adopting import assumed, candidates
from mindtune.glue.plan import Job, Plan

TRAIN = {"train_iters": 100, "eval_interval": 50, "eval_iters": 2, "lr": 1e-3, "min_lr": 0.0,
         "lr_decay_style": "constant", "lr_warmup_fraction": 0.0, "save_optim": True}  # fmt: skip
NEW, OLD = "0123456789abcdef", "fedcba9876543210"
CONTENT = {"content": {"train_data": "1"}}


def settings(code, **train):
    return {"engine": "hf", "code": code, "train": TRAIN | train, "processor": {}}


@pytest.fixture
def save_dir(tmp_path):
    """As old code left it, at iteration 50 of 100."""
    place = tmp_path / "save_dir"
    with claimed(place, settings(OLD) | CONTENT):
        shard = place / "iter_0000050/mp_rank_00/model_optim_rng.pt"
        shard.parent.mkdir(parents=True)
        shard.write_text("weights")
        (place / "latest_checkpointed_iteration.txt").write_text("50")
        (place / LOSS).write_text(",".join(COLUMNS) + "\n")
    return place


def files(place):
    return {path.relative_to(place): path.read_bytes() for path in place.rglob("*.*")}


def test_a_training_of_other_code_is_left_as_it_is_until_it_is_adopted(save_dir):
    before = files(save_dir.parent)
    for _ in range(2):
        with pytest.raises(UserError, match=r"up to iteration 50 .* scripts/adopt\.py"):
            claimed(save_dir, settings(NEW) | CONTENT).__enter__()
        assert files(save_dir.parent) == before
    mark = adopt(save_dir, settings(NEW))
    assert adopt(save_dir, settings(NEW)) == mark
    note = {"made_by": OLD, "iteration": 50, "adopted_as": NEW}
    assert adoptions(save_dir) == [note]
    with claimed(save_dir, settings(NEW) | CONTENT) as found:
        assert found == mark and (save_dir / "iter_0000050").is_dir()
    # Each further one is told beside, and what goes on from these checkpoints says so, too.
    adopt(save_dir, settings("a" * 16))
    assert [one["made_by"] for one in adoptions(save_dir)] == [OLD, NEW]
    with claimed(save_dir, settings("a" * 16, train_iters=200) | CONTENT):
        assert (save_dir / "iter_0000050").is_dir()
    assert [one["made_by"] for one in adoptions(save_dir)] == [OLD, NEW]


def test_other_settings_or_data_are_not_adopted_and_are_put_aside_as_ever(save_dir):
    with pytest.raises(UserError, match="other settings than today's, or no checkpoint"):
        adopt(save_dir, settings(NEW, lr=2e-3))
    adopt(save_dir, settings(NEW))  # what it read is compared when the training goes on
    with claimed(save_dir, settings(NEW) | {"content": {"train_data": "2"}}):
        assert not (save_dir / "iter_0000050").exists()
    assert len([*save_dir.with_name("save_dir.superseded").iterdir()]) == 1


def test_put_aside_on_the_users_word_it_trains_again_and_old_code_finds_it(save_dir):
    with held(save_dir) as place:
        clear(place)
    with claimed(save_dir, settings(NEW) | CONTENT):
        assert not (save_dir / "iter_0000050").exists()
    with claimed(save_dir, settings(OLD) | CONTENT):
        assert (save_dir / "iter_0000050").is_dir()
    # Nor is there anything to decide where today's checkpoints are kept beside.
    assert training_directory.is_kept(save_dir, settings(NEW))


def test_not_while_a_training_writes_to_it(save_dir):
    with held(save_dir), pytest.raises(UserError, match="another training is writing"):
        adopt(save_dir, settings(NEW))


def test_a_kill_between_two_writes_leaves_the_old_record_or_the_new(save_dir, monkeypatch):
    def dying(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training_directory, "write_json", dying)
        adopt(save_dir, settings(NEW))
    assert json.loads((save_dir / "settings.json").read_text())["code"] == OLD
    adopt(save_dir, settings(NEW))
    assert len(adoptions(save_dir)) == 1


def job(rule, params, recorded):
    return Job(
        0, rule, {}, True, params, [repr(value) for value in recorded], [], [], [], [], False, None,
        [], ["results/a/x.json"],
    )  # fmt: skip


ANSWERS = ({"batch_size": 8}, {"max_pixels": 9}, {"threads": 1})


@pytest.mark.parametrize(
    ("rule", "params", "recorded", "adopted"),
    [
        ("finetune_model", {"train": 1, "code": NEW}, [1, OLD], True),
        ("finetune_model", {"train": 1, "code": NEW}, [1, NEW], False),
        ("finetune_model", {"train": 1, "code": NEW}, [2, OLD], False),
        ("finetune_model", {"train": 1, "code": NEW}, [1, 2, OLD], False),
        ("finetune_model", {"train": 1, "seed": 2, "code": NEW}, [1, OLD], False),
        ("finetune_model", {"train": 1, "name": "a", "code": NEW}, [1, "a", "b"], False),
        ("finetune_model", {"train": 1, "code": NEW}, [], False),
        ("compare_answers", {"train": 1, "code": NEW}, [1, OLD], False),
        # The forms of version 0.1.
        ("export_model", {"converter": "mindtune", "parallel": {"pp": 1}, "code": NEW},
         ["hf", {"pp": 1}, {}, OLD], True),
        ("export_model", {"converter": "mm-convert", "parallel": {"pp": 1}, "code": NEW},
         ["mindspeed", {"pp": 1}, {"converter": "mm-convert"}, OLD], True),
        ("export_model", {"converter": "mm-convert", "parallel": {"pp": 1}, "code": NEW},
         ["mindspeed", {"pp": 1}, {"converter": "mindtune"}, OLD], False),
        ("export_model", {"converter": "mindtune", "parallel": {"pp": 2}, "code": NEW},
         ["hf", {"pp": 1}, {}, OLD], False),
        ("answer_prompts",
         dict(enumerate(["hf", *ANSWERS, (1, 2), None])) | {"code": NEW},
         ["hf", *ANSWERS, (1, 2), OLD], True),
        ("answer_prompts",
         dict(enumerate(["hf", *ANSWERS, (1, 2), {"a": 1}])) | {"code": NEW},
         ["hf", *ANSWERS, (1, 2), OLD], False),
    ],
)  # fmt: skip
def test_a_job_is_a_candidate_when_its_code_alone_is_another(rule, params, recorded, adopted):
    found = candidates(Plan([job(rule, params, recorded)]))
    assert [(one.before, one.now) for one in found] == ([(OLD, NEW)] if adopted else [])
    if adopted:
        assert assumed(found) == {"results/a/x.json": sorted(map(repr, params.values()))}


def test_the_record_of_a_result_names_the_code_that_made_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = "results/a/x.json"
    made.keep("r", [output], [OLD, 1], ["in"])
    assert made.adopted(output) is None and made.adopted_below(["a"]) == {}
    for code in (NEW, NEW, "a" * 16):
        made.adopt("r", output, [repr(code), "1"], ["in"], OLD, code)
        assert made.recorded(output) == {
            "rule": "r", "params": sorted([repr(code), "1"]), "input": ["in"],
        }  # fmt: skip
        assert made.adopted_below(["a", "b"]) == {output: {"made_by": OLD, "adopted_as": code}}
    made.forget([output])
    assert made.adopted(output) is None
