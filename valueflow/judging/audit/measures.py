"""Metrics of an audit: estimates with 95 % intervals, whose sampling unit is the triple.

Shapes as in `audit.py`: won_TPSR is 1 if the higher rated text of a pair won, 0 if the lower did, nan if there is no valid
answer (T triples, P pairs, S presentations: higher rated text first, last; R repeats).
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata, t

from valueflow.judging.audit.triples import PAIRS, Triples
from valueflow.numerics.intervals import Z95, wilson_interval

RIDGE = 0.1


class Interval(NamedTuple):
    """An estimate with its 95 % interval and the number of units behind it; nan if there are none."""

    estimate: float
    low: float
    high: float
    n: int


UNKNOWN = Interval(np.nan, np.nan, np.nan, 0)


def broken(won_TPSR: np.ndarray) -> Interval:
    """Return the share of windows without a valid answer."""
    return share(np.isnan(won_TPSR), np.ones_like(won_TPSR))


def accuracy(won_TPSR: np.ndarray) -> Interval:
    """Return the share of answers in which the higher rated text won."""
    return share(np.nan_to_num(won_TPSR), ~np.isnan(won_TPSR))


def debiased_accuracy(won_TPSR: np.ndarray, log_odds_TPSR: np.ndarray) -> Interval:
    """Return the share of pairs that the higher rated text wins by both presentations together; a tie counts half.

    Args:
        won_TPSR: the answers.
        log_odds_TPSR: for the higher rated text, where the judge gave a probability; nan elsewhere, where an answer counts ±1.
    """
    both_TP = ~np.isnan(won_TPSR).any(axis=(2, 3))
    margin_TPSR = np.where(np.isnan(log_odds_TPSR), 2 * won_TPSR - 1, log_odds_TPSR)
    return share((1 + np.sign(np.nan_to_num(margin_TPSR.sum(axis=(2, 3))))) / 2, both_TP)


def specificity(won_TPSR: np.ndarray, other_TS: np.ndarray) -> Interval:
    """Return how much more often the higher rated text of the widest pairs wins on its own value than on another one.

    Args:
        won_TPSR: the answers on the own value; the last pair of a triple is the widest.
        other_TS: answers to that pair when another value is asked about, in both presentations.
    """
    answered_T = ~(np.isnan(won_TPSR[:, -1]).all(axis=(1, 2)) | np.isnan(other_TS).all(axis=1))
    own_T = np.nanmean(won_TPSR[answered_T, -1], axis=(1, 2))
    difference_T = own_T - np.nanmean(other_TS[answered_T], axis=1)
    count = len(difference_T)
    if not count:
        return UNKNOWN
    mean = float(difference_T.mean())
    half = float(t.ppf(0.975, count - 1) * difference_T.std(ddof=1) / np.sqrt(count)) if count > 1 else 1.0
    return Interval(mean, max(mean - half, -1.0), min(mean + half, 1.0), count)


def order_consistency(won_TPSR: np.ndarray) -> Interval:
    """Return the share of pairs, of those answered in both presentations, that the same text won both times."""
    both_TPR = ~np.isnan(won_TPSR).any(axis=2)
    return share(won_TPSR[:, :, 0] == won_TPSR[:, :, 1], both_TPR)


def position_effect(won_TPSR: np.ndarray) -> Interval:
    """Return the share of answers that the first position won, less one half.

    Of pairs answered in both presentations, so that the effect of the texts cancels.
    """
    both_TPR = ~np.isnan(won_TPSR).any(axis=2)
    first_TPR = np.where(both_TPR, won_TPSR[:, :, 0] + 1 - won_TPSR[:, :, 1], 0.0)
    first = share(first_TPR, 2 * both_TPR)
    return Interval(first.estimate - 0.5, first.low - 0.5, first.high - 0.5, first.n)


def retest(won_TPSR: np.ndarray) -> Interval:
    """Return the share of pairs of repeats of one question (same texts, same positions) that agree."""
    answered = (~np.isnan(won_TPSR)).sum(axis=3)
    high = np.nansum(won_TPSR, axis=3)
    low = answered - high
    return share((high * (high - 1) + low * (low - 1)) / 2, answered * (answered - 1) / 2)


def transitivity(won_TPSR: np.ndarray) -> Interval:
    """Return the share of triples without a cycle; the majority of its answers decides each pair.

    A tie counts half for either text. So a judge that always answers the same position, all of whose pairs tie, gets 3/4 like
    one that answers at random, not 1.
    """
    lead_TP = np.nansum(2 * won_TPSR - 1, axis=(2, 3))
    p_TP = (1 + np.sign(lead_TP)) / 2
    cycle_T = p_TP[:, 0] * p_TP[:, 1] * (1 - p_TP[:, 2]) + (1 - p_TP[:, 0]) * (1 - p_TP[:, 1]) * p_TP[:, 2]
    whole_T = (~np.isnan(won_TPSR)).any(axis=(2, 3)).all(axis=1)
    return share(np.where(whole_T, 1 - cycle_T, 0.0), whole_T)


def share(hits: np.ndarray, of: np.ndarray) -> Interval:
    """Return sum(hits) / sum(of) with a Wilson interval whose clusters are triples (the first axis).

    Answers within a triple are correlated, so the interval is Wilson's at the effective sample size: the number of independent
    answers with the variance that the triples have. If all triples agree, that variance is unknown, and every triple counts as
    one answer.
    """
    hits_T, of_T = (x.reshape(len(x), -1).sum(axis=1, dtype=float) for x in (np.where(of > 0, hits, 0), of))
    hits_T, of_T = hits_T[of_T > 0], of_T[of_T > 0]
    if not len(of_T):
        return UNKNOWN
    count, clusters = of_T.sum(), len(of_T)
    p = hits_T.sum() / count
    size, z = float(clusters), Z95
    if clusters > 1:
        variance = clusters / (clusters - 1) * ((hits_T - p * of_T) ** 2).sum() / count**2
        if variance > 1e-12:
            size, z = min(p * (1 - p) / variance, count), float(t.ppf(0.975, clusters - 1))
    low, high = wilson_interval(p, size, z)
    return Interval(float(p), max(low, 0.0) if p > 0 else 0.0, min(high, 1.0) if p < 1 else 1.0, int(count))


def spearman(triples: Triples, won_TPSR: np.ndarray) -> Interval:
    """Return the rank correlation between ratings and the order fitted to a value's answers, as the mean over values.

    The order is fitted by least squares: differences of worth explain the answers. (Plackett-Luce gives the same within 0.01
    for audits of this size, and cannot be fitted once per triple.) The interval is the jackknife's over triples; in simulation
    it covers 94 % for a coin flip and more for good judges, where a bootstrap over triples covers 70 %.
    """
    correlations, variances, count, freedom = [], [], 0, 0
    for number in range(len(triples.values)):
        mask_T = triples.value_T == number
        size = int(mask_T.sum())
        worth_BN, rows_N = _worths(
            triples.rows_T3[mask_T], won_TPSR[mask_T], np.concatenate([np.ones((1, size)), 1 - np.eye(size)])
        )
        rating_N = triples.rating_N[rows_N]
        if len(rows_N) < 3 or np.ptp(rating_N) == 0:
            continue
        whole, *without = _rank_correlation(rating_N, worth_BN)
        correlations.append(whole)
        variances.append((size - 1) * np.var(without) if size > 1 else np.inf)
        count, freedom = count + len(rows_N), freedom + size - 1
    if not correlations:
        return UNKNOWN
    half = float(t.ppf(0.975, max(freedom, 1)) * np.sqrt(np.sum(variances)) / len(correlations))
    estimate = float(np.mean(correlations))
    return Interval(estimate, max(estimate - half, -1.0), min(estimate + half, 1.0), count)


def _worths(rows_T3: np.ndarray, won_TPSR: np.ndarray, weight_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares worth (B, N) of the texts with answers, for each weighting of the triples, and their rows in the table."""
    rows_N, local = np.unique(rows_T3, return_inverse=True)
    pairs_TP2 = local.reshape(rows_T3.shape)[:, PAIRS]
    answered_TP = (~np.isnan(won_TPSR)).sum(axis=(2, 3))
    lead_TP = np.nansum(2 * won_TPSR - 1, axis=(2, 3))
    num_triples, size = len(rows_T3), len(rows_N)
    laplacian_TNN, gain_TN = np.zeros((num_triples, size, size)), np.zeros((num_triples, size))
    for pair in range(len(PAIRS)):
        triple, higher, lower = np.arange(num_triples), pairs_TP2[:, pair, 0], pairs_TP2[:, pair, 1]
        for a, b in ((higher, lower), (lower, higher)):
            laplacian_TNN[triple, a, a] += answered_TP[:, pair]
            laplacian_TNN[triple, a, b] -= answered_TP[:, pair]
        gain_TN[triple, higher] += lead_TP[:, pair]
        gain_TN[triple, lower] -= lead_TP[:, pair]
    answered_N = np.flatnonzero(np.diagonal(laplacian_TNN.sum(0)) > 0)
    matrix = (weight_BT @ laplacian_TNN.reshape(num_triples, -1)).reshape(-1, size, size) + RIDGE * np.eye(size)
    worth_BN = np.linalg.solve(matrix, (weight_BT @ gain_TN)[:, :, None])[:, :, 0]
    return worth_BN[:, answered_N], rows_N[answered_N]


def _rank_correlation(rating_N: np.ndarray, worth_BN: np.ndarray) -> np.ndarray:
    """Spearman's correlation of the ratings with each row of worths; 0 for a row without differences."""
    rating = rankdata(rating_N) - (len(rating_N) + 1) / 2
    # Equal worths differ by rounding errors of the solver.
    worth = rankdata(np.round(worth_BN, 9), axis=1) - (len(rating_N) + 1) / 2
    length = np.sqrt((worth**2).sum(1) * (rating**2).sum())
    return np.divide(worth @ rating, length, out=np.zeros(len(worth)), where=length > 0)
