"""Intervals and tests, against scipy and against published examples."""

from itertools import product

import numpy as np
import pytest
from mindtune.comparison.statistics import (
    RESAMPLES,
    Clusters,
    clusters,
    compare,
    exchange_test,
    exchange_tests,
    mean_interval,
    share_interval,
    t_quantile,
    tango_interval,
    wilson_interval,
)
from scipy import optimize, stats


@pytest.mark.parametrize(("right", "n"), [(0, 10), (3, 10), (10, 10), (454, 480), (1, 1)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_is_scipys(right, n, confidence):
    wanted = stats.binomtest(right, n).proportion_ci(confidence, "wilson")
    assert wilson_interval(right, n, confidence) == pytest.approx((wanted.low, wanted.high))


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 19, 59, 400])
@pytest.mark.parametrize("confidence", [0.6, 0.95, 0.999])
def test_the_quantile_of_t_is_scipys(freedom, confidence):
    wanted = stats.t.ppf((1 + confidence) / 2, freedom)
    assert t_quantile(freedom, confidence) == pytest.approx(wanted, rel=1e-9)


def test_tangos_interval_is_the_published_one():
    # Fagerland, Lydersen and Laake (2014), the airway data of Bentur et al.
    assert tango_interval(7, 1, 21, 1.959964) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize(("lost", "won", "n"), [(1, 4, 20), (3, 30, 50), (0, 6, 30), (40, 41, 200)])
def test_tangos_interval_is_where_its_score_is_the_quantile(lost, won, n):
    """The constrained likelihood maximised by scipy, not by the formula."""

    def score(delta):
        def loss(share):  # of prompts that lost; won = share + delta
            return -(
                lost * np.log(share)
                + won * np.log(share + delta)
                + (n - lost - won) * np.log(1 - 2 * share - delta)
            )

        bounds = (max(0, -delta) + 1e-12, (1 - delta) / 2 - 1e-12)
        share = optimize.minimize_scalar(
            loss, bounds=bounds, method="bounded", options={"xatol": 1e-12}
        ).x
        return (won - lost - n * delta) / np.sqrt(n * (2 * share + delta - delta**2))

    low, high = tango_interval(lost, won, n, 1.96)
    assert (score(low), score(high)) == pytest.approx((1.96, -1.96), abs=1e-3)


def test_where_nothing_changed_the_interval_tells_how_much_could_have():
    low, high = tango_interval(0, 0, 20, 1.96)
    assert (low, high) == pytest.approx((-(1.96**2) / (20 + 1.96**2), 1.96**2 / (20 + 1.96**2)))


def test_the_cluster_interval_of_single_prompts_is_students():
    rng = np.random.default_rng(2)
    before, after = rng.normal(50, 10, 30), rng.normal(55, 10, 30)
    wanted = stats.ttest_1samp(after - before, 0).confidence_interval(0.95)
    found = compare(before, after, range(30), 0.95, None)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_equal_prompts_of_a_picture_count_once():
    """Four times the same about each picture is worth as much as once."""
    rng = np.random.default_rng(4)
    before, after = rng.random(60) < 0.4, rng.random(60) < 0.6
    once = compare(before, after, range(60), 0.95, 1)
    four = compare(*(np.repeat(x, 4) for x in (before, after, range(60))), 0.95, 1)
    assert (four.low, four.high) == pytest.approx((once.low, once.high), abs=1e-9)
    alone = compare(np.repeat(before, 4), np.repeat(after, 4), range(240), 0.95, 1)
    assert four.high - four.low > 1.8 * (alone.high - alone.low)


def test_scores_and_shares_are_in_their_own_units():
    rng = np.random.default_rng(5)
    before, after = rng.random(80) / 2, rng.random(80)
    share = compare(before, after, range(80), 0.95, 1)
    hundred = compare(100 * before, 100 * after, range(80), 0.95, 100)
    assert hundred.difference == pytest.approx(100 * (after - before).mean())
    assert (hundred.low, hundred.high) == pytest.approx((100 * share.low, 100 * share.high))


def exact_p(sums):
    """Two-sided, over all exchanges."""
    found = [abs(np.dot(signs, sums)) for signs in product((-1, 1), repeat=len(sums))]
    return np.mean(np.array(found) >= abs(sum(sums)) - 1e-9)


def test_the_exchange_test_is_scipys_exact_permutation_test():
    sums = np.array([3.0, -1.0, 2.0, 2.5, -0.5, 1.0, 4.0, 0.0])
    wanted = stats.permutation_test(
        (sums, np.zeros(8)), lambda x, y: (x - y).sum(), permutation_type="samples",
        n_resamples=np.inf,
    ).pvalue  # fmt: skip
    assert exchange_test(sums) == pytest.approx(wanted) == pytest.approx(exact_p(sums))


def test_the_exchange_test_of_single_changes_is_mcnemars():
    sums = np.array([1.0] * 7 + [-1.0] * 2)
    assert exchange_test(sums) == pytest.approx(stats.binomtest(2, 9).pvalue)


def test_the_exchange_test_by_chance_is_near_scipys():
    sums = np.random.default_rng(5).normal(0.45, 1, 60)
    wanted = stats.permutation_test(
        (sums, np.zeros(60)), lambda x, y: (x - y).sum(), permutation_type="samples",
        n_resamples=20_000, rng=np.random.default_rng(1),
    ).pvalue  # fmt: skip
    assert exchange_test(sums) == pytest.approx(wanted, abs=0.01)


def test_how_small_p_can_be_is_what_the_documentation_says():
    assert exchange_test(np.ones(13)) == 2 / 2**13
    assert exchange_test(np.ones(40)) == 1 / (RESAMPLES + 1) == 0.0002


def test_the_correction_of_the_largest_of_all_is_that_of_all_exchanges():
    """Westfall and Young's max T by hand, over all exchanges of nine pictures."""
    sums = np.random.default_rng(8).normal(0.5, 1, (9, 3))
    spread = np.sqrt((sums**2).sum(0))
    signs = np.array(list(product((-1, 1), repeat=9)))
    largest = (np.abs(signs @ sums) / spread).max(1)
    seen = np.abs(sums.sum(0)) / spread
    wanted = (largest[:, None] >= seen - 1e-6).mean(0)
    alone, corrected = exchange_tests(sums)
    assert corrected == pytest.approx(wanted)
    assert alone == pytest.approx([exact_p(column) for column in sums.T])
    assert (corrected >= alone).all()


def test_a_correction_for_copies_of_one_test_is_none():
    sums = np.random.default_rng(9).normal(0.3, 1, 80)
    alone, corrected = exchange_tests(np.column_stack([sums] * 5))
    assert corrected == pytest.approx(alone)


def test_nothing_changed_is_no_difference():
    same = np.array([True, False] * 50)
    found = compare(same, same, range(100), 0.95, 1)
    assert found.difference == 0 and found.low < 0 < found.high
    assert exchange_test(clusters(same, same, range(100)).sums) == 1
    lengths = compare(same, same, range(100), 0.95, None)
    assert (lengths.low, lengths.high) == (0, 0)


def test_of_one_picture_nothing_is_known():
    shares = compare([False] * 4, [True] * 4, ["a"] * 4, 0.95, 1)
    assert shares.low < 0 < shares.high
    lengths = compare([1, 2, 3], [2, 3, 4], ["a"] * 3, 0.95, None)
    assert lengths.difference == 1 and np.isnan(lengths.low) and np.isnan(lengths.high)


def test_all_better_is_not_certain():
    found = compare([False] * 100, [True] * 100, range(100), 0.95, 1)
    assert found.difference == found.high == 1
    # Tango's lower end solves (n - n d)^2 = z^2 n (2 q + d (1 - d)) with n (1 - d) = z^2 q' there.
    assert 0.9 < found.low < 0.97


def test_intervals_cover_the_truth_as_often_as_they_say():
    """1,000 comparisons; benchmarks/calibration.py does it with real answers."""
    rng = np.random.default_rng(6)
    hard = rng.beta(1, 3, (1000, 60, 1))  # questions about one picture are hard together
    gained = (rng.random((1000, 60, 4)) < hard).sum(-1)
    won = rng.binomial(gained, 0.7)
    found = Clusters(gained - won, won, np.full(won.shape, 4))
    for interval in (share_interval, mean_interval):
        low, high = interval(found, 0.95)
        covered = ((low <= 0.25 * 0.4) & (high >= 0.25 * 0.4)).mean()
        assert 0.93 <= covered <= 0.97


def test_is_the_same_every_time():
    sums = np.random.default_rng(7).normal(size=300)
    assert exchange_test(sums) == exchange_test(sums)
