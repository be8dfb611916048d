"""How sure a share, and a difference between before and after, can be.

The two answers to one prompt are a pair, and prompts about the same picture are not
independent of one another. Means are therefore compared by resampling pictures, with both
answers to all their prompts. For shares there are exact formulas too, which hold at the ends
(0 % and 100 %) where resampling sees no spread, but which take prompts as independent: the
more careful of the two is reported, the wider interval and the larger p.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np

RESAMPLES = 1_999
SEED = 20_240_905
EXACT_UP_TO = 13
_CHUNK = 1_000_000


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
    p: float


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


def paired_share_interval(
    both: int, only_before: int, only_after: int, neither: int, confidence: float
) -> tuple[float, float]:
    """Interval of the difference of two paired shares, after minus before.

    R. G. Newcombe, "Improved confidence intervals for the difference between binomial
    proportions based on paired data", Statistics in Medicine 17 (1998), method 10: two Wilson
    intervals, squared and added, with the correlation of the pairs (corrected when positive).
    """
    n = both + only_before + only_after + neither
    first, second = (both + only_before) / n, (both + only_after) / n
    low_1, high_1 = wilson_interval(both + only_before, n, confidence)
    low_2, high_2 = wilson_interval(both + only_after, n, confidence)
    margins = (
        (both + only_before)
        * (only_after + neither)
        * (both + only_after)
        * (only_before + neither)
    )
    agreement = both * neither - only_before * only_after
    if agreement > 0:
        agreement = max(agreement - n / 2, 0)
    phi = agreement / sqrt(margins) if margins else 0.0
    down, up = second - low_2, high_1 - first
    below = sqrt(max(0.0, down**2 - 2 * phi * down * up + up**2))
    up, down = high_2 - second, first - low_1
    above = sqrt(max(0.0, up**2 - 2 * phi * up * down + down**2))
    difference = second - first
    return max(-1.0, difference - below), min(1.0, difference + above)


def mcnemar(only_before: int, only_after: int) -> float:
    """Exact p of McNemar's test: are the two kinds of discordant pairs equally likely?"""
    n, fewer = only_before + only_after, min(only_before, only_after)
    if n == 0:
        return 1.0
    term, total = 1, 0
    for k in range(fewer + 1):
        total += term
        term = term * (n - k) // (k + 1)
    return min(1.0, 2 * total / 2**n)


def compare_means(
    before: Sequence[float],
    after: Sequence[float],
    pictures: Sequence,
    confidence: float,
    seed: int = SEED,
) -> Difference:
    """Compare two paired means, by resampling pictures."""
    first, second = np.asarray(before, float), np.asarray(after, float)
    _, cluster = np.unique(np.asarray(pictures, dtype=str), return_inverse=True)
    sizes = np.bincount(cluster).astype(float)
    sums = np.bincount(cluster, second - first)
    low, high = _bootstrap_interval(sums, sizes, confidence, np.random.default_rng(seed))
    return Difference(
        n=len(first),
        pictures=len(sizes),
        before=float(first.mean()),
        after=float(second.mean()),
        difference=float(second.mean() - first.mean()),
        low=low,
        high=high,
        p=sign_flip(sums, np.random.default_rng(seed)),
    )


def compare_shares(
    before: Sequence[bool],
    after: Sequence[bool],
    pictures: Sequence,
    confidence: float,
    seed: int = SEED,
) -> Difference:
    """Compare two paired shares: the more careful of resampling and the exact formulas."""
    first, second = np.asarray(before, bool), np.asarray(after, bool)
    resampled = compare_means(first, second, pictures, confidence, seed)
    lost, won = int((first & ~second).sum()), int((~first & second).sum())
    low, high = paired_share_interval(
        int((first & second).sum()), lost, won, int((~first & ~second).sum()), confidence
    )
    return Difference(
        resampled.n,
        resampled.pictures,
        resampled.before,
        resampled.after,
        resampled.difference,
        min(low, resampled.low),
        max(high, resampled.high),
        max(mcnemar(lost, won), resampled.p),
    )


def sign_flip(sums: np.ndarray, rng: np.random.Generator) -> float:
    """p of the paired permutation test: were before and after exchanged at will, picture by
    picture, how often would the difference be as large? All exchanges when they are few.
    """
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    seen = abs(sums.sum()) * (1 - 1e-12) - 1e-12
    if len(sums) <= EXACT_UP_TO:
        bits = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
        return float((np.abs((2 * bits - 1) @ sums) >= seen).mean())
    as_large = 0
    for count in _chunks(len(sums)):
        signs = rng.integers(0, 2, (count, len(sums)), dtype=np.int8) * 2 - 1
        as_large += int((np.abs(signs @ sums) >= seen).sum())
    return (as_large + 1) / (RESAMPLES + 1)


def _bootstrap_interval(sums, sizes, confidence, rng) -> tuple[float, float]:
    """Percentile interval of the mean difference, pictures drawn with replacement."""
    drawn = np.empty(RESAMPLES)
    done = 0
    for count in _chunks(len(sums)):
        places = rng.integers(0, len(sums), (count, len(sums)))
        drawn[done : done + count] = sums[places].sum(1) / sizes[places].sum(1)
        done += count
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _chunks(width: int) -> Iterator[int]:
    """RESAMPLES in parts of some million numbers."""
    size, left = max(1, _CHUNK // width), RESAMPLES
    while left:
        yield min(size, left)
        left -= min(size, left)
