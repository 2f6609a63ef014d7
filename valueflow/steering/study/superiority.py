"""Probability of superiority: an effect without a unit, comparable across values and models.

Points of two values are not comparable, since each value has its own zero and unit (docs/method.md). The probability that the
steered response scores higher than the default one is; Cliff's delta is 2 p - 1.
"""

import numpy as np
from scipy.stats import norm


def superiority(
    y_Q: np.ndarray, y0_Q: np.ndarray, sd_Q: np.ndarray | None = None, sd0_Q: np.ndarray | None = None
) -> np.ndarray:
    """Return of each query the probability that the first score is truly higher (Q,); NaN where one is missing.

    Args:
        y_Q: scores of the steered responses.
        y0_Q: scores of the default responses to the same queries.
        sd_Q: standard deviations of the judge's posteriors, taken as normal and independent; None: scores are exact.
        sd0_Q: the same for the default responses.
    """
    gap_Q = y_Q - y0_Q
    if sd_Q is None or sd0_Q is None:
        return np.where(np.isnan(gap_Q), np.nan, 0.5 + 0.5 * np.sign(gap_Q))
    sd_gap_Q = np.sqrt(sd_Q**2 + sd0_Q**2)
    exact_Q = 0.5 + 0.5 * np.sign(gap_Q)
    return np.where(sd_gap_Q > 0, norm.cdf(gap_Q / np.where(sd_gap_Q > 0, sd_gap_Q, 1.0)), exact_Q)


def cliff(probability: np.ndarray) -> np.ndarray:
    """Return Cliff's delta, from -1 (always lower) to 1 (always higher)."""
    return 2 * probability - 1
