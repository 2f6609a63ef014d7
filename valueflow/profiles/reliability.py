"""Split-half reliability of profiles, stepped up to their full length (Spearman and Brown).

Two questions have two answers. Of a value over units: does it tell units apart? Of a unit over values: is the shape of its
profile stable? Both correlate the means of two random halves of the texts, and average the correlation over splits.

Shapes: U units, V values, S splits.
"""

import numpy as np

MIN_UNITS, MIN_VALUES = 5, 4  # for a correlation


def over_units(halves_UV2S: np.ndarray) -> np.ndarray:
    """Return the reliability of each value over units (V,); nan with fewer than 5 units that have both halves."""
    return np.array([_stepped_up(halves_UV2S[:, v], MIN_UNITS) for v in range(halves_UV2S.shape[1])])


def over_values(halves_UV2S: np.ndarray, scale_V: np.ndarray) -> np.ndarray:
    """Return the reliability of each unit's profile over values (U,); nan with fewer than 4 values that have both halves.

    Args:
        halves_UV2S: means of halves.
        scale_V: what each value is divided by, so that values of a wide scale do not decide alone.
    """
    return np.array([_stepped_up(of_unit / scale_V[:, None], MIN_VALUES) for of_unit in halves_UV2S])


def spearman_brown(correlation: float, factor: float = 2.0) -> float:
    """Return the reliability of a test that is `factor` times as long as one of this reliability."""
    return factor * correlation / (1 + (factor - 1) * correlation)


def _stepped_up(halves_N2S: np.ndarray, least: int) -> float:
    correlations = []
    for split in range(halves_N2S.shape[1] // 2):
        pair_N2 = halves_N2S[:, 2 * split : 2 * split + 2]
        pair_N2 = pair_N2[np.isfinite(pair_N2).all(1)]
        if len(pair_N2) >= least and (np.ptp(pair_N2, axis=0) > 0).all():
            correlations.append(float(np.corrcoef(pair_N2.T)[0, 1]))
    if not correlations:
        return float("nan")
    mean = float(np.mean(correlations))
    return spearman_brown(mean) if mean > -0.99 else -1.0
