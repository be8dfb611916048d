"""Intervals and tests, against scipy and against published examples."""

import numpy as np
import pytest
from mindtune.comparison.statistics import (
    compare_means,
    compare_shares,
    mcnemar,
    paired_share_interval,
    sign_flip,
    wilson_interval,
)
from scipy import stats


@pytest.mark.parametrize(("right", "n"), [(0, 10), (3, 10), (10, 10), (454, 480), (1, 1)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_is_scipys(right, n, confidence):
    wanted = stats.binomtest(right, n).proportion_ci(confidence, "wilson")
    assert wilson_interval(right, n, confidence) == pytest.approx((wanted.low, wanted.high))


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        # Newcombe (1998), tables II and III; Fagerland et al. (2014), the Bentur airway data.
        ((36, 2, 12, 0), (0.0569, 0.3404)),
        ((1, 7, 1, 12), (-0.5069, -0.0256)),
    ],
)
def test_paired_interval_is_the_published_one(cells, wanted):
    assert paired_share_interval(*cells, 0.95) == pytest.approx(wanted, abs=5e-5)


@pytest.mark.parametrize("cells", [(0, 7), (1, 7), (5, 5), (30, 61), (0, 0), (700, 800)])
def test_mcnemar_is_scipys_binomial_test(cells):
    n = sum(cells)
    wanted = stats.binomtest(cells[0], n).pvalue if n else 1.0
    assert mcnemar(*cells) == pytest.approx(wanted)


def test_sign_flip_is_scipys_exact_permutation_test():
    sums = np.array([3.0, -1.0, 2.0, 2.5, -0.5, 1.0, 4.0, 0.0])
    wanted = stats.permutation_test(
        (sums, np.zeros(8)), lambda x, y: (x - y).sum(), permutation_type="samples",
        n_resamples=np.inf,
    ).pvalue  # fmt: skip
    assert sign_flip(sums, np.random.default_rng(0)) == pytest.approx(wanted)


def test_sign_flip_by_chance_is_near_scipys():
    sums = np.random.default_rng(5).normal(0.45, 1, 60)
    wanted = stats.permutation_test(
        (sums, np.zeros(60)), lambda x, y: (x - y).sum(), permutation_type="samples",
        n_resamples=20_000, rng=np.random.default_rng(1),
    ).pvalue  # fmt: skip
    assert sign_flip(sums, np.random.default_rng(0)) == pytest.approx(wanted, abs=0.02)


def test_bootstrap_is_near_scipys_when_each_prompt_has_its_own_picture():
    rng = np.random.default_rng(2)
    before, after = rng.normal(50, 10, 200), rng.normal(55, 10, 200)
    wanted = stats.bootstrap(
        (before, after), lambda x, y, axis: (y - x).mean(axis), paired=True,
        method="percentile", n_resamples=50_000, rng=np.random.default_rng(3),
    ).confidence_interval  # fmt: skip
    found = compare_means(before, after, range(200), 0.95)
    assert found.difference == pytest.approx((after - before).mean())
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.2)


def test_prompts_about_one_picture_make_the_interval_wider():
    rng = np.random.default_rng(4)
    gain = np.repeat(rng.normal(1, 5, 40), 4)
    before = rng.normal(50, 1, 160)
    alone = compare_means(before, before + gain, range(160), 0.95)
    together = compare_means(before, before + gain, np.repeat(range(40), 4), 0.95)
    assert together.pictures == 40 and alone.pictures == 160
    assert together.high - together.low > 1.6 * (alone.high - alone.low)
    assert together.p > alone.p


def test_nothing_changed_is_no_difference():
    same = np.array([True, False] * 50)
    found = compare_shares(same, same, range(100), 0.95)
    assert found.difference == 0 and found.p == 1
    assert found.low < 0 < found.high
    means = compare_means(same, same, range(100), 0.95)
    assert (means.low, means.high, means.p) == (0, 0, 1)


def test_all_better_is_not_certain():
    found = compare_shares([False] * 100, [True] * 100, range(100), 0.95)
    assert found.difference == 1 and found.high == 1
    assert 0.9 < found.low < 1


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng, covered = np.random.default_rng(6), 0
    for _ in range(200):
        right = rng.random((60, 2)) < np.repeat([[0.3, 0.5]], 60, axis=0)
        found = compare_shares(right[:, 0], right[:, 1], range(60), 0.95)
        covered += found.low <= 0.2 <= found.high
    assert covered >= 0.93 * 200


def test_is_the_same_every_time():
    rng = np.random.default_rng(7)
    values = rng.normal(size=(2, 300))
    first, second = (compare_means(*values, range(300), 0.95) for _ in range(2))
    assert first == second
