"""Intervals of weighted means by the bootstrap over clusters of texts, for many means at once.

A mean is a ratio of two sums over clusters (threads, authors; a text without one is its own). Clusters are drawn with
replacement. The percentile interval of few clusters is too short, as it has no quantile of Student's distribution in it and a
variance too small by (n - 1) / n: its levels are expanded to Φ(-sqrt(n / (n - 1)) t(0.975, n - 1)) (Hesterberg 2015,
doi:10.1080/00031305.2015.1089789). It follows the skewness of the texts, which an interval by standard errors does not.

All means over n clusters use the same draws: each is a valid bootstrap of its own, and one product of matrices makes them.

Shapes: R means (rows), G clusters of a mean, B draws.
"""

import functools

import numpy as np
from scipy.stats import norm, t

DRAWS = 1000
MIN_CLUSTERS = 8  # with fewer, the ends of the bootstrap are the extremes of the sample; the t interval is used
BLOCK = 4096  # rows of one product: 16 MB of means


def interval(deviation_RG: np.ndarray, weight_RG: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the 95 % interval of means over G clusters, as differences from the means (R,).

    Args:
        deviation_RG: sum over the texts of a cluster of weight times (text - mean).
        weight_RG: sum of their weights, above 0.
        seed: of the draws.
    """
    num_rows, size = deviation_RG.shape
    count_GB = draws(size, seed)
    level = float(norm.cdf(-np.sqrt(size / (size - 1)) * t.ppf(0.975, size - 1)))
    low_R, high_R = np.empty(num_rows), np.empty(num_rows)
    for start in range(0, num_rows, BLOCK):
        rows = slice(start, start + BLOCK)
        means_RB = (deviation_RG[rows].astype(np.float32) @ count_GB) / (weight_RG[rows].astype(np.float32) @ count_GB)
        low_R[rows], high_R[rows] = _quantiles(means_RB, level)
    return low_R, high_R


@functools.lru_cache(maxsize=256)
def draws(size: int, seed: int) -> np.ndarray:
    """Return how often each cluster is in each draw (G, B)."""
    rng = np.random.default_rng([seed, size])
    return rng.multinomial(size, np.full(size, 1 / size), DRAWS).T.astype(np.float32).copy()


def _quantiles(means_RB: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The quantiles `level` and 1 - `level` of each row; linear between order statistics."""
    place = level * (means_RB.shape[1] - 1)
    below, share = int(place), place - int(place)
    last = means_RB.shape[1] - 1
    means_RB.sort(axis=1)  # five times as fast as a partition at four places
    low_R = (1 - share) * means_RB[:, below] + share * means_RB[:, below + 1]
    high_R = (1 - share) * means_RB[:, last - below] + share * means_RB[:, last - below - 1]
    return low_R, high_R
