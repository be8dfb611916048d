"""How sure a share, and a difference between before and after, can be.

The two answers to one prompt are a pair, and prompts about the same picture are not independent
of one another: everything here counts pictures. Differences of shares and of bounded scores
have a score interval (Tango) with as many prompts as they are worth (the design effect), for it
also holds where few answers changed and at 0 % and 100 %; unbounded ones have the cluster-robust
t interval. Tests exchange before and after, picture by picture. benchmarks/calibration.py shows
how often all of it is right.

Arrays have the pictures in their last axis and may have any axes before it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import cos, pi, sin, sqrt
from statistics import NormalDist

import numpy as np

RESAMPLES = 4_999
SEED = 20_240_905
EXACT_UP_TO = 13
# A share's design effect that is estimated below this is chance. Chosen, as the quantiles below,
# on simulated answers of other kinds than those of benchmarks/calibration.py.
LEAST_DESIGN_EFFECT = 0.85
_CHUNK = 1_000_000
_TIE = 1 - 1e-5  # wider than float32 rounds, narrower than two shares of 10,000 prompts differ
_STEPS = 50


@dataclass(frozen=True)
class Difference:
    """After minus before: of `n` prompts about `pictures` pictures."""

    n: int
    pictures: int
    before: float
    after: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Clusters:
    """Differences by picture: what prompts lost and won in sum, and how many prompts there are.

    Each array is (…, pictures); lost and won are not negative.
    """

    lost: np.ndarray
    won: np.ndarray
    sizes: np.ndarray

    @property
    def sums(self) -> np.ndarray:
        return self.won - self.lost

    @property
    def mean(self) -> np.ndarray:
        return self.sums.sum(-1) / self.sizes.sum(-1)

    def variance(self) -> np.ndarray:
        """Of the mean, robust against whatever prompts about one picture have in common."""
        count = self.sizes.shape[-1]
        residuals = self.sums - self.mean[..., None] * self.sizes
        return count / max(count - 1, 1) * (residuals**2).sum(-1) / self.sizes.sum(-1) ** 2


def clusters(before: Sequence[float], after: Sequence[float], pictures: Sequence) -> Clusters:
    """Pairs of values, one of each prompt, by picture."""
    difference = np.asarray(after, float) - np.asarray(before, float)
    _, cluster = np.unique(np.asarray(pictures, dtype=str), return_inverse=True)
    return Clusters(
        np.bincount(cluster, np.maximum(-difference, 0)),
        np.bincount(cluster, np.maximum(difference, 0)),
        np.bincount(cluster).astype(float),
    )


def compare(
    before: Sequence[float],
    after: Sequence[float],
    pictures: Sequence,
    confidence: float,
    most: float | None,
) -> Difference:
    """Compare two paired means. most: the greatest possible value, when 0 is the least."""
    first, second = np.asarray(before, float), np.asarray(after, float)
    top = most or 1.0
    found = clusters(first / top, second / top, pictures)
    if most is None:
        low, high = mean_interval(found, confidence)
    elif set(np.unique(np.concatenate([first, second]))) <= {0.0, top}:
        low, high = share_interval(found, confidence)
    else:
        low, high = score_interval(found, confidence)
    difference = float(second.mean() - first.mean())
    return Difference(
        n=len(first),
        pictures=found.sizes.shape[-1],
        before=float(first.mean()),
        after=float(second.mean()),
        difference=difference,
        low=min(top * float(low), difference),
        high=max(top * float(high), difference),
    )


def wilson_interval(right: int, n: int, confidence: float) -> tuple[float, float]:
    """The Wilson score interval of a share of `right` in `n`.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 22 (1927); unlike the usual interval it holds for small n and for shares near 0 and 1.
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def tango_interval(lost, won, n, quantile) -> tuple[np.ndarray, np.ndarray]:
    """Score interval of the difference (won - lost) / n of two paired shares.

    T. Tango, "Equivalence test and confidence interval for the difference in proportions for
    the paired-sample design", Statistics in Medicine 17 (1998). The counts need not be whole.
    """
    lost, won, n, quantile = np.broadcast_arrays(
        *(np.asarray(value, float) for value in (lost, won, n, quantile))
    )
    difference = (won - lost) / n

    def score(delta: np.ndarray) -> np.ndarray:
        b = (2 * n + lost - won) * delta - lost - won
        root = np.sqrt(np.maximum(b * b + 8 * n * lost * delta * (1 - delta), 0))
        variance = n * ((root - b) / (2 * n) + delta * (1 - delta))
        with np.errstate(divide="ignore", invalid="ignore"):
            return (won - lost - n * delta) / np.sqrt(np.maximum(variance, 0))

    def solved(low: np.ndarray, high: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        for _ in range(_STEPS):
            middle = (low + high) / 2
            found = score(middle)
            left = np.where(np.isnan(found), middle < difference, found > wanted)
            low, high = np.where(left, middle, low), np.where(left, high, middle)
        return (low + high) / 2

    one = np.ones_like(difference)
    return solved(-one, difference, quantile), solved(difference, one, -quantile)


def share_interval(found: Clusters, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Of a difference of shares: each prompt lost 1, won 1 or kept what it had.

    With one prompt to a picture this is Tango's own interval.
    """
    count = found.sizes.shape[-1]
    quantile = NormalDist().inv_cdf((1 + confidence) / 2)
    variance = found.variance() * max(count - 1, 1) / count
    return _effective(found, variance, quantile, LEAST_DESIGN_EFFECT)


def score_interval(found: Clusters, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Of a difference of scores between 0 and 1."""
    return _effective(found, found.variance(), _t_quantile(found, confidence), 0.0)


def mean_interval(found: Clusters, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Of a difference of any numbers: cluster-robust, with Student's t; nan of a single picture."""
    known = found.sizes.shape[-1] > 1
    half = _t_quantile(found, confidence) * np.sqrt(found.variance()) if known else np.nan
    return found.mean - half, found.mean + half


def _t_quantile(found: Clusters, confidence: float) -> float:
    return t_quantile(max(found.sizes.shape[-1] - 1, 1), confidence)


@cache
def t_quantile(freedom: int, confidence: float) -> float:
    """The t within which Student's distribution has `confidence`, on both sides of 0."""
    low, high = 0.0, pi / 2
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return sqrt(freedom) * sin(low) / cos(low)


def _within(angle: float, freedom: int) -> float:
    """P(|t| <= sqrt(freedom) tan(angle)), Abramowitz and Stegun 26.7.3 and 26.7.4."""
    odd = freedom % 2
    term = cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= (k - 1) / k * cos(angle) ** 2
        total += term
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total


def _effective(
    found: Clusters, variance: np.ndarray, quantile: float, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """Tango's interval of as many independent prompts as would vary as much.

    Where all prompts changed alike nothing can be seen of their dependence: those about one
    picture count as one then.
    """
    n = found.sizes.sum(-1)
    lost, won = found.lost.sum(-1), found.won.sum(-1)
    independent = (lost + won - (won - lost) ** 2 / n) / n**2
    wholly_dependent = (found.sizes**2).sum(-1) / n
    seen = (independent > 1e-15) & (variance > 1e-15)
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = np.where(seen, variance / independent, wholly_dependent)
    effect = np.maximum(effect, least)
    return tango_interval(lost / effect, won / effect, n / effect, quantile)


def exchange_tests(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p of paired permutation tests, each by itself and corrected for their number.

    sums: (pictures, tests), what a picture's prompts gained in each test. Before and after are
    exchanged at will, picture by picture and in all tests at once: how often is a difference as
    large, and how often is the largest of all, in units of its own spread (P. H. Westfall and
    S. S. Young, "Resampling-Based Multiple Testing", 1993, single-step max T)? All exchanges are
    made where at most EXACT_UP_TO pictures have changed, and RESAMPLES by lot otherwise; p is
    then 1 / (RESAMPLES + 1) at least.
    """
    sums = np.asarray(sums, float)
    sums = sums[(sums != 0).any(1)]
    spread = np.sqrt((sums**2).sum(0))
    alone, corrected = np.ones(sums.shape[1]), np.ones(sums.shape[1])
    judged = spread > 0
    if not judged.any():
        return alone, corrected
    sums = (sums[:, judged] / spread[judged]).astype(np.float32)
    seen = np.abs(sums.sum(0)) * _TIE - 1e-6
    counts = np.zeros((2, len(seen)), dtype=np.int64)
    total = 0
    for signs in _signs(len(sums)):
        found = np.abs(signs @ sums)
        counts[0] += (found >= seen).sum(0)
        counts[1] += (found.max(1)[:, None] >= seen).sum(0)
        total += len(signs)
    by_lot = int(len(sums) > EXACT_UP_TO)
    alone[judged], corrected[judged] = (counts + by_lot) / (total + by_lot)
    return alone, corrected


def exchange_test(sums: np.ndarray) -> float:
    """p of one paired permutation test. sums: (pictures,)"""
    return float(exchange_tests(np.asarray(sums)[:, None])[0][0])


def _signs(pictures: int) -> Iterator[np.ndarray]:
    """Exchanges as rows of -1 and 1, in chunks: all of them, or RESAMPLES by lot."""
    if pictures <= EXACT_UP_TO:
        bits = np.arange(2**pictures)[:, None] >> np.arange(pictures) & 1
        yield bits.astype(np.float32) * 2 - 1
        return
    rng = np.random.default_rng(SEED)
    size, left = max(1, _CHUNK // pictures), RESAMPLES
    while left:
        count = min(size, left) * pictures
        bits = np.unpackbits(np.frombuffer(rng.bytes((count + 7) // 8), np.uint8), count=count)
        yield bits.reshape(-1, pictures).astype(np.float32) * 2 - 1
        left -= min(size, left)
