"""Effects of steering, paired by query, with the sources of the queries as fixed strata.

The difference of two levels is taken within each query, so that what makes a query attract a value cancels. The sources are
fixed strata of equal weight: five are too few to be a random sample of sources.

    effect = mean over sources of mean over queries of d_q
    SE²    = sum over sources of w² var(d_q) / n,  w = 1 / number of sources;  t with Q - S degrees of freedom

Shapes: Q queries, L = 5 levels, J contrasts, S strata. NaN is a missing score.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import page_trend_test, t

SCALE = (-2, -1, 0, 1, 2)  # the levels by column; 0 is the neutral persona
# Contrasts of the levels by name. A slope is the change per level between 0 and the outer level of a polarity.
CONTRASTS: dict[str, tuple[float, ...]] = {
    "default": (0, 0, 1, 0, 0),
    "effect -2": (1, 0, -1, 0, 0),
    "effect -1": (0, 1, -1, 0, 0),
    "effect +1": (0, 0, -1, 1, 0),
    "effect +2": (0, 0, -1, 0, 1),
    "slope -": (-0.5, 0, 0.5, 0, 0),
    "slope +": (0, 0, -0.5, 0, 0.5),
    "asymmetry": (0.5, 0, -1, 0, 0.5),
    "curvature -": (1, -2, 1, 0, 0),
    "curvature +": (0, 0, 1, -2, 1),
    "-1 over -2": (-1, 1, 0, 0, 0),
    "0 over -1": (0, -1, 1, 0, 0),
    "+1 over 0": (0, 0, -1, 1, 0),
    "+2 over +1": (0, 0, 0, -1, 1),
}
# Contrasts whose intervals hold together: those of figures and verdicts.
FAMILY = ("default", "effect -2", "effect -1", "effect +1", "effect +2", "asymmetry")
ADJACENT = ("-1 over -2", "0 over -1", "+1 over 0", "+2 over +1")


class Effects(NamedTuple):
    """J means over the strata.

    Attributes:
        estimate_J: mean of the strata's means.
        error_J: standard errors.
        freedom_J: degrees of freedom of t.
        num_J: queries that count.
    """

    estimate_J: np.ndarray
    error_J: np.ndarray
    freedom_J: np.ndarray
    num_J: np.ndarray

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the intervals, each of which holds for its own contrast."""
        half_J = t.ppf(0.5 + level / 2, self.freedom_J) * self.error_J
        return self.estimate_J - half_J, self.estimate_J + half_J

    def p_values(self) -> np.ndarray:
        """Return the two-sided p-values of no effect; 1 where all differences are 0."""
        t_J = np.divide(self.estimate_J, self.error_J, out=np.zeros_like(self.estimate_J), where=self.error_J > 0)
        t_J[(self.error_J == 0) & (self.estimate_J != 0)] = np.inf
        return 2 * t.sf(np.abs(t_J), self.freedom_J)


def strata(sources: Sequence[str]) -> np.ndarray:
    """Return the stratum of each query (Q,), from 0; sources of fewer than two queries share one stratum."""
    names, code_Q, count = np.unique(np.asarray(sources), return_inverse=True, return_counts=True)
    code_Q = np.where(count[code_Q] < 2, len(names), code_Q)
    merged_Q = np.unique(code_Q, return_inverse=True)[1]
    if (np.bincount(merged_Q) < 2).any():  # one such source alone joins the first stratum
        merged_Q[merged_Q == merged_Q.max()] = 0
    return merged_Q


def contrasts(y_QL: np.ndarray, names: Sequence[str] = tuple(CONTRASTS)) -> np.ndarray:
    """Return the contrasts within each query (Q, J); NaN where a level that a contrast needs has no score."""
    weight_LJ = np.array([CONTRASTS[name] for name in names]).T
    missing_QL = np.isnan(y_QL)
    value_QJ = np.where(missing_QL, 0.0, y_QL) @ weight_LJ
    value_QJ[(missing_QL.astype(float) @ (weight_LJ != 0)) > 0] = np.nan
    return value_QJ


def stratified(d_QJ: np.ndarray, stratum_Q: np.ndarray) -> Effects:
    """Return the mean of every contrast.

    A stratum counts for a contrast if it has two scores or more; a contrast without such a stratum is NaN.
    """
    valid_QJ = ~np.isnan(d_QJ)
    value_QJ = np.where(valid_QJ, d_QJ, 0.0)
    member_SQ = (stratum_Q == np.arange(stratum_Q.max() + 1)[:, None]).astype(float)
    num_SJ = member_SQ @ valid_QJ
    counts_SJ = num_SJ >= 2
    size_SJ = np.where(counts_SJ, num_SJ, 2.0)
    mean_SJ = member_SQ @ value_QJ / size_SJ
    deviation_QJ = np.where(valid_QJ, value_QJ - mean_SJ[stratum_Q], 0.0)
    variance_SJ = member_SQ @ deviation_QJ**2 / (size_SJ - 1)
    num_strata_J = counts_SJ.sum(0)
    weight_SJ = np.where(counts_SJ, 1.0 / np.maximum(num_strata_J, 1), 0.0)
    num_J = np.where(counts_SJ, num_SJ, 0).sum(0)
    estimate_J = np.where(num_strata_J > 0, (weight_SJ * mean_SJ).sum(0), np.nan)
    error_J = np.where(num_strata_J > 0, np.sqrt((weight_SJ**2 * variance_SJ / size_SJ).sum(0)), np.nan)
    return Effects(estimate_J, error_J, np.maximum(num_J - num_strata_J, 1.0), num_J)


class Monotone(NamedTuple):
    """How far the scores follow the levels within queries.

    Attributes:
        tau: mean of Kendall's tau-b of score and level over queries.
        low: lower end of its 95 % interval.
        high: upper end.
        against: share of queries whose least-squares slope is negative: the model moves the wrong way.
        page_p: p-value of Page's test that scores increase with the level; None with fewer than 2 complete queries.
    """

    tau: float
    low: float
    high: float
    against: float
    page_p: float | None


def monotone(y_QL: np.ndarray, stratum_Q: np.ndarray) -> Monotone:
    """Return how far the scores follow the levels; queries with a missing level are left out."""
    complete_Q = ~np.isnan(y_QL).any(1)
    y_QL, stratum_Q = y_QL[complete_Q], stratum_Q[complete_Q]
    if len(y_QL) < 2:
        return Monotone(np.nan, np.nan, np.nan, np.nan, None)
    first, second = np.triu_indices(y_QL.shape[1], 1)
    sign_QP = np.sign(y_QL[:, second] - y_QL[:, first])
    untied_Q = (sign_QP != 0).sum(1)
    tau_Q = sign_QP.sum(1) / np.sqrt(np.maximum(untied_Q, 1) * len(first))
    effects = stratified(tau_Q[:, None], stratum_Q)
    low_J, high_J = effects.interval()
    slope_Q = y_QL @ np.array(SCALE)
    page = page_trend_test(y_QL, method="asymptotic")
    return Monotone(
        float(effects.estimate_J[0]), float(low_J[0]), float(high_J[0]), float((slope_Q < 0).mean()), float(page.pvalue)
    )
