"""Circular triads (a beats b, b beats c, c beats a) against the share that Plackett-Luce expects.

Shapes: N texts, E pairs in windows, D distinct pairs, T triads (each as its pairs ab, bc, ac).
"""

import numpy as np
import scipy.sparse
from scipy.special import expit

from valueflow.config import Config
from valueflow.ranking.pairs import Pairs, differences
from valueflow.ranking.plackett_luce import Fit

MAX_TRIADS, SIMULATIONS = 20_000, 200
CHUNK = 2_000  # pairs at a time; each has a row of the comparison graph in memory


class Triads(Config):
    """Share of circular triads, observed and expected, with the model's 95 % interval."""

    triads: int
    observed: float
    expected: float
    low: float
    high: float


def transitivity(pairs: Pairs, fitted: Fit) -> Triads | None:
    """Return the observed share of circular triads and that of answers simulated for the same windows; None without triads.

    Triads come from all windows, since the three pairs of a triad are rarely all held out; one theta per text cannot learn a
    circle. A pair is decided by the majority of its windows of one set of texts. The three pairs of a triad come from different
    windows, because the order within one window is transitive. Simulated answers are drawn under the posterior.
    """
    n = len(fitted.theta_N)
    lower_E, upper_E = np.minimum(pairs.first_E, pairs.second_E), np.maximum(pairs.first_E, pairs.second_E)
    pair_E = lower_E * n + upper_E
    # Of several sets of texts, the one with the smallest hash: a choice by outcome or rank would bias the result.
    by_text_set = np.lexsort((pairs.text_set_E, pair_E))
    pair_D, first_D = np.unique(pair_E[by_text_set], return_index=True)
    row_D, number_E = by_text_set[first_D], np.searchsorted(pair_D, pair_E)
    counted_E = pairs.text_set_E == pairs.text_set_E[row_D][number_E]
    signed_E = np.where(pairs.first_E == lower_E, pairs.weight_E, -pairs.weight_E)
    won_D = _majority(np.bincount(number_E, signed_E * counted_E, len(row_D)))
    decided_D = np.flatnonzero(won_D)
    triads_T3 = decided_D[_triads(pair_D[decided_D], pairs.text_set_E[row_D][decided_D], n)]
    if not len(triads_T3):
        return None
    counted_E &= np.isin(number_E, triads_T3)
    counted, signed_E, number_E = Pairs(*(column[counted_E] for column in pairs)), signed_E[counted_E], number_E[counted_E]
    rng, shares = np.random.default_rng(0), []
    for _ in range(SIMULATIONS):
        theta_N = fitted.theta_N + fitted.root_NS @ rng.normal(size=fitted.root_NS.shape[1])
        same_E = rng.random(len(number_E)) < expit(differences(counted, theta_N, fitted))
        simulated_D = np.bincount(number_E, np.where(same_E, signed_E, -signed_E), len(row_D))
        shares.append(_circular_share(_majority(simulated_D)[triads_T3]))
    if np.isnan(shares).all():
        return None
    low, high = np.nanquantile(shares, [0.025, 0.975]).tolist()
    observed = _circular_share(won_D[triads_T3])
    return Triads(triads=len(triads_T3), observed=observed, expected=float(np.nanmean(shares)), low=low, high=high)


def _triads(pair_D: np.ndarray, text_set_D: np.ndarray, n: int) -> np.ndarray:
    """Return triads a < b < c as indices of their pairs ab, bc, ac (T, 3), no two from one window; at most `MAX_TRIADS`.

    Args:
        pair_D: lower text * n + upper text of each pair, ascending.
        text_set_D: hash of the set of texts of the windows that decided each pair.
        n: number of texts.
    """
    rng = np.random.default_rng(0)
    lower_D, upper_D = np.divmod(pair_D, n)
    compared_NN = scipy.sparse.csr_matrix((np.ones(len(pair_D), bool), (lower_D, upper_D)), (n, n))
    compared_NN += compared_NN.T
    order_D, parts, count = rng.permutation(len(pair_D)), [np.empty((0, 3), int)], 0
    for start in range(0, len(pair_D), CHUNK):
        one, two = lower_D[order_D[start : start + CHUNK]], upper_D[order_D[start : start + CHUNK]]
        row, third = compared_NN[one].multiply(compared_NN[two]).nonzero()
        a, b, c = np.sort(np.stack([one[row], two[row], third], axis=1), axis=1).T
        pairs_T3 = np.searchsorted(pair_D, np.stack([a * n + b, b * n + c, a * n + c], axis=1))
        ab, bc, ac = text_set_D[pairs_T3].T
        parts.append(pairs_T3[(ab != bc) & (bc != ac) & (ab != ac)])
        count += len(parts[-1])
        if count >= 3 * MAX_TRIADS:  # each triad appears once for each of its pairs
            break
    triads_T3 = np.unique(np.concatenate(parts), axis=0)
    return triads_T3 if len(triads_T3) <= MAX_TRIADS else triads_T3[rng.choice(len(triads_T3), MAX_TRIADS, replace=False)]


def _majority(margin_D: np.ndarray) -> np.ndarray:
    """Return 1 where the lower-numbered text of a pair won, -1 where the other did, 0 for a tie."""
    return np.where(np.abs(margin_D) > 1e-9, np.sign(margin_D), 0.0)


def _circular_share(won_T3: np.ndarray) -> float:
    """Return the share of circular triads among those without a tie; nan without any."""
    decided_T = (won_T3 != 0).all(1)
    ab, bc, ac = won_T3[decided_T].T
    return float(np.mean((ab == bc) & (bc == -ac))) if decided_T.any() else np.nan
