"""Intervals that hold for all contrasts of a study together.

The default responses are shared by all values and levels, so the contrasts are correlated. Whole queries are drawn again within
their source, the same for all contrasts, and the critical value is a quantile of the largest studentized deviation (Westfall
and Young 1993; Romano and Wolf 2005, doi:10.1198/016214504000000539):

    t*_j = (mean*_j - mean_j) / SE*_j,    c = quantile of max_j |t*_j|,    interval mean_j ± c SE_j

Shapes: B draws, Q queries, J contrasts, S strata.
"""

import numpy as np

from valueflow.steering.study.effects import Effects


def draw_queries(stratum_Q: np.ndarray, num_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each query occurs in each draw (B, Q); a draw has as many queries of each stratum as there are."""
    count_BQ = np.zeros((num_draws, len(stratum_Q)))
    for stratum in np.unique(stratum_Q):
        (members,) = np.nonzero(stratum_Q == stratum)
        count_BQ[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), num_draws)
    return count_BQ


def redrawn_means(d_QJ: np.ndarray, stratum_Q: np.ndarray, count_BQ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the stratified means of every draw and their standard errors (B, J each); see `effects.stratified`."""
    valid_QJ = ~np.isnan(d_QJ)
    # Centred, so that the variance as a difference of squares loses no digits.
    center_J = np.where(valid_QJ.any(0), np.nansum(d_QJ, 0) / np.maximum(valid_QJ.sum(0), 1), 0.0)
    value_QJ = np.where(valid_QJ, d_QJ - center_J, 0.0)
    complete = bool(valid_QJ.all())
    shape = (len(count_BQ), d_QJ.shape[1])
    mean_BJ, variance_BJ, strata_BJ = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for stratum in np.unique(stratum_Q):
        (rows,) = np.nonzero(stratum_Q == stratum)
        count_Bq, value_qJ = count_BQ[:, rows], value_QJ[rows]
        num_BJ = np.full(shape, float(len(rows))) if complete else count_Bq @ valid_QJ[rows]
        size_BJ = np.maximum(num_BJ, 2.0)
        of_stratum_BJ = count_Bq @ value_qJ / size_BJ
        square_BJ = count_Bq @ value_qJ**2 / size_BJ - of_stratum_BJ**2
        used_BJ = num_BJ >= 2
        mean_BJ += np.where(used_BJ, of_stratum_BJ, 0.0)
        variance_BJ += np.where(used_BJ, np.maximum(square_BJ, 0.0) / (size_BJ - 1), 0.0)
        strata_BJ += used_BJ
    strata_BJ = np.where(strata_BJ > 0, strata_BJ, np.nan)
    return mean_BJ / strata_BJ + center_J, np.sqrt(variance_BJ) / strata_BJ


def deviations(d_QJ: np.ndarray, stratum_Q: np.ndarray, count_BQ: np.ndarray, effects: Effects) -> np.ndarray:
    """Return |t*| of every draw and contrast (B, J); 0 where a draw has no spread, as with differences that are all equal."""
    mean_BJ, error_BJ = redrawn_means(d_QJ, stratum_Q, count_BQ)
    gap_BJ = np.abs(mean_BJ - effects.estimate_J)
    return np.divide(gap_BJ, error_BJ, out=np.zeros_like(gap_BJ), where=np.nan_to_num(error_BJ) > 0)


def critical_value(t_BJ: np.ndarray, level: float) -> float:
    """Return c: with probability `level`, no contrast deviates by more than c standard errors."""
    return float(np.quantile(np.max(t_BJ, axis=1, initial=0.0), level))
