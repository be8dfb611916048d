"""How sure a share is."""

from math import sqrt
from statistics import NormalDist


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
