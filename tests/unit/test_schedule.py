"""Megatron's learning rate and MindSpeed-MM's order of samples, against recorded values."""

import itertools

import pytest
import torch
from mindtune.engines.hf.schedule import sample_order
from mindtune.engines.learning_rate import learning_rate
from mindtune.settings.typed import typed

TUTORIAL = {
    "lr": 1e-5, "min_lr": 0.0, "train_iters": 100, "lr_warmup_fraction": 0.1, "lr_decay_style": "cosine",
}  # fmt: skip


# As Megatron's own scheduler class prints them after an iteration (reference, section 4.3).
@pytest.mark.parametrize(
    ("iteration", "shown"),
    [
        (0, 0.0), (1, 1.000000e-06), (10, 1.000000e-05), (11, 9.996954e-06), (50, 5.868241e-06),
        (51, 5.695866e-06), (99, 3.045865e-09), (100, 0.0),
    ],
)  # fmt: skip
def test_the_learning_rate_is_megatrons(iteration, shown):
    assert learning_rate(iteration, typed("train", TUTORIAL)) == pytest.approx(
        shown, rel=1e-6, abs=1e-15
    )


def test_other_shapes_of_decay():
    def rate(iteration, **changes):
        return learning_rate(iteration, typed("train", TUTORIAL | changes))

    linear = {"lr_decay_style": "linear", "min_lr": 1e-6}
    assert rate(55, **linear) == pytest.approx(5.5e-6)
    assert rate(100, **linear) == pytest.approx(1e-6)
    assert rate(90, lr_decay_style="constant") == 1e-5
    assert rate(0, lr_warmup_fraction=0.0) == 1e-5


def take(count, *order):
    return list(itertools.islice(sample_order(*order), count))


def test_each_epoch_is_a_permutation_seeded_with_its_number():
    first = torch.randperm(8, generator=torch.Generator().manual_seed(0)).tolist()
    second = torch.randperm(8, generator=torch.Generator().manual_seed(1)).tolist()
    assert take(16, 10, 4, 0) == first + second


def test_it_goes_on_where_it_stood():
    whole = take(40, 10, 4, 0)
    for consumed in (4, 8, 12, 20):
        assert take(20, 10, 4, consumed) == whole[consumed : consumed + 20]
