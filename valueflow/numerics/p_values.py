"""p values corrected for their number; NaN, a hypothesis that was not tested, stays and does not count."""

from collections.abc import Callable

import numpy as np
from scipy.stats import false_discovery_control


def holm(p_N: np.ndarray) -> np.ndarray:
    """Return p values corrected by Holm's step-down procedure (1979), which bounds the chance of any false finding."""
    return _of_tested(p_N, _holm)


def benjamini_hochberg(p_N: np.ndarray) -> np.ndarray:
    """Return p values corrected by the false discovery rate (1995), for maps that explore."""
    return _of_tested(p_N, false_discovery_control)


def _of_tested(p_N: np.ndarray, correct: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    corrected_N = np.full(len(p_N), np.nan)
    tested_N = ~np.isnan(p_N)
    corrected_N[tested_N] = correct(p_N[tested_N])
    return corrected_N


def _holm(p_N: np.ndarray) -> np.ndarray:
    order = np.argsort(p_N, kind="stable")
    corrected_N = np.empty(len(p_N))
    corrected_N[order] = np.minimum(np.maximum.accumulate(p_N[order] * np.arange(len(p_N), 0, -1)), 1.0)
    return corrected_N
