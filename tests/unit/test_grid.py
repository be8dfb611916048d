"""`grid`: which experiments it stands for, how they are named, and what it may not say."""

from pathlib import Path

import pytest
import yaml
from mindtune.glue.settings_reading import check_files
from mindtune.settings import ConfigError, load
from mindtune.settings.grid import MOST, word_of

ROOT = Path(__file__).parents[2]


def problems(grid, **rest):
    with pytest.raises(ConfigError) as caught:
        load({"grid": grid, **rest})
    return caught.value.problems


def test_every_combination_is_an_experiment_beside_the_named_ones():
    found = load(
        {
            "experiments": {"baseline": {}, "hot": {"train": {"lr": 1e-3}}},
            "grid": {"train.lr": [1e-5, 3e-5], "train.order_seed": [1, 2]},
        }
    )
    assert list(found.experiments) == [
        "baseline", "hot", "lr-1e-5_order_seed-1", "lr-1e-5_order_seed-2",
        "lr-3e-5_order_seed-1", "lr-3e-5_order_seed-2",
    ]  # fmt: skip
    train = found.experiments["lr-3e-5_order_seed-2"]["train"]
    assert (train["lr"], train["order_seed"]) == (3e-5, 2)
    assert found.experiments["baseline"]["train"]["lr"] == 1e-5
    assert "grid" not in found.common and "grid" not in found.experiments["hot"]
    # Nothing but training differs, so all share their data and answers before.
    assert {found.scope(name, "before") for name in found.experiments} == {"shared"}


def test_ranks_of_adapters_are_swept():
    found = load({"grid": {"train.lora.rank": [4, 16]}}).experiments
    assert [*found] == ["rank-4", "rank-16"]
    assert [one["train"]["lora"]["rank"] for one in found.values()] == [4, 16]
    assert found["rank-4"]["train"]["lora"]["alpha"] == 16


def test_a_grid_alone_has_no_baseline():
    assert list(load({"grid": {"train.lr": [1e-5]}}).experiments) == ["lr-1e-5"]
    assert list(load({"grid": {}}).experiments) == ["baseline"]


def test_names_depend_on_values_and_not_on_how_they_are_written():
    one = load({"grid": {"train.lr": ["1e-5", "0.001"], "train.order_seed": [None, 7]}})
    other = load({"grid": {"train.order_seed": [None, "7"], "train.lr": [0.00001, 1e-3]}})
    assert list(one.experiments) == list(other.experiments) == [
        "lr-1e-5_order_seed-null", "lr-1e-5_order_seed-7",
        "lr-0.001_order_seed-null", "lr-0.001_order_seed-7",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (1e-5, "1e-5"), (2.5e-05, "2.5e-5"), (1e-4, "1e-4"), (1e-3, "0.001"), (0.1, "0.1"),
        (1.0, "1"), (0.0, "0"), (3e6, "3e6"), (300000, "300000"), (None, "null"), (True, "true"),
        ([[2, 2]], "2-2"), ("cosine", "cosine"), ("a b/c", "a-b-c"),
    ],
)  # fmt: skip
def test_words_of_values(value, word):
    assert word_of(value) == word


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        ({"train.lr": [1e-4, -1]}, "grid.train.lr[1] is -1, but must be greater than 0."),
        ({"train.lr": ["x"]}, 'grid.train.lr[0] is "x", but must be a number.'),
        ({"train.lr": [1e-3, "0.001"]}, 'grid.train.lr[1] is "0.001", which is the same as another '
         "value of the list or makes the same name, `0.001`; write each value once."),
        ({"train.lrr": [1]}, "grid.train.lrr is not a key; did you mean `lr`?"),
        ({"trian.lr": [1]}, "grid.trian.lr can't differ between experiments; did you mean `train`?"),
        ({"hf.threads": [1, 2]}, "grid.hf.threads can't differ between experiments; it may have keys of "
         "data, processor, parallel, train, answer."),
        ({"train": [1]}, "grid.train is a section; write a key of it, such as `train.train_iters`."),
        ({"train.lora": [1]}, "grid.train.lora is a section; write a key of it, such as `train.lora.rank`."),
        ({"train.lora.r": [1]}, "grid.train.lora.r is not a key; grid.train.lora knows rank, alpha, dropout, "
         "target_modules."),
        ({"train.lr.x": [1]}, "grid.train.lr.x is not a key; train.lr has no keys of its own."),
        ({"train.lora.rank": [4, 0]}, "grid.train.lora.rank[1] is 0, but must be at least 1."),
        ({"sources.model": [1]}, "grid.sources.model can't be swept: paths make no short names; write an "
         "experiment for each model."),
        ({"train.lr": 0.1}, "grid.train.lr is 0.1, but must be a list."),
        ({"train.lr": []}, "grid.train.lr is empty; write at least 1 entry."),
        ({"train.lr": [1e-5, 2e-5], "train.order_seed": list(range(MOST))},
         "grid has 2,000 combinations (2 x 1000), but may have at most 1,000; sweep fewer values at once."),
        ({"train.micro_batch_size": [5], "train.order_seed": [1, 2]},
         "experiments.micro_batch_size-5_order_seed-1: train.global_batch_size is 24, which is no "
         "multiple of train.micro_batch_size 5; the nearest that is: 25."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(grid, sentence):
    assert problems(grid) == [sentence]


def test_a_name_belongs_to_one_experiment():
    assert problems({"train.lr": [0.1]}, experiments={"lr-0.1": None}) == [
        "grid would make the experiment lr-0.1, but experiments has that name; rename or remove it."
    ]
    said = problems(
        {
            f"train.{key}": [0.123456789012]
            for key in ("lr_warmup_fraction", "weight_decay", "adam_beta1", "adam_beta2")
        }
    )
    assert len(said) == 1 and "characters, but may have at most 100" in said[0]


def test_the_sentence_has_the_line_of_the_value(tmp_path):
    path = tmp_path / "sweep.yaml"
    demo = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    text = yaml.safe_dump({**demo, "grid": {"train.lr": [0.001, 2]}}, sort_keys=False)
    path.write_text(text)
    line = 1 + text.splitlines().index("  - 2")
    with pytest.raises(ConfigError) as caught:
        check_files([path], ROOT / "config/data_sources.yaml")
    said = str(caught.value)
    assert f"line {line}: grid.train.lr[1] is 2, but must be at most 1." in said
