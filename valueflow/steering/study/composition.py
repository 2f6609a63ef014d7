"""How two values compose: a factorial of none, a, b and both in both orders, per query and on the axis of each value.

    interaction   I = (y_ab + y_ba) / 2 - y_a - y_b + y_0      0: the effects add up
    order         O = y_ab - y_ba                              not 0: the position in the prompt matters
    weights       D = w_a D_a + w_b D_b                        the shift of both as a mixture of the shifts of each
    dominance     (w_a - w_b) / (w_a + w_b)                    1: only a is heard

Interaction and dominance average both orders, so that the position of a value is not mistaken for its strength; with one order
alone, whichever stands last where the last is heard most would appear to dominate. Axes are in standard deviations of the
scores without steering. A ceiling makes any interaction negative: an axis on which the sum of the effects would come within
one standard deviation of the end of the reachable range is left out.

Shapes: Q queries, C = 5 cells (none, a, b, ab, ba), X = 2 axes (a, b), B draws.
"""

from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import f, t

from valueflow.steering.study.effects import Effects, stratified
from valueflow.steering.study.simultaneous import critical_value, deviations, redrawn_means
from valueflow.steering.study.verdicts import Interval

CELLS = ("none", "a", "b", "ab", "ba")
NONE, A, B, AB, BA = range(5)
MIN_DOMINANCE = 0.5  # |dominance|: one value weighs three times the other
NUM_FOLDS = 10

Name = Literal["additive", "sub-additive", "super-additive", "dominance", "order effect", "no room", "undetermined"]


class Composition(NamedTuple):
    """How two values compose.

    Attributes:
        name: the most specific claim that the intervals allow.
        interaction: on the axes of a and b (2 intervals); positive where both express more than their sum.
        order: shift towards the value that stands last, on its own axis, mean of both axes.
        dominance: with the ends of its 95 % interval.
        dominant: a, b, "none" (the interval lies within the limit) or "undetermined".
        hotelling_p: p-value of no interaction on both axes together.
        weights: w_a, w_b.
        angle: degrees between the shift of both and the sum of the shifts.
        ratio: length of the shift of both over that of the sum.
        strongest_over_sum: squared error of "only the strongest is heard" less that of "effects add up", cross-validated by
            query, with its 95 % interval; positive where the sum predicts better.
        excluded: axes without room.
    """

    name: Name
    interaction: tuple[Interval, Interval]
    order: Interval
    dominance: tuple[float, float, float]
    dominant: str
    hotelling_p: float
    weights: tuple[float, float]
    angle: float
    ratio: float
    strongest_over_sum: tuple[float, float, float]
    excluded: tuple[str, ...]


def compose(y_QCX: np.ndarray, stratum_Q: np.ndarray, count_BQ: np.ndarray, margin: float, reach_X2: np.ndarray) -> Composition:
    """Return how two values compose.

    Args:
        y_QCX: standardized scores; where the cell "ba" was not run, a copy of "ab" stands for it.
        stratum_Q: sources.
        count_BQ: draws of the queries.
        margin: smallest interaction and order effect of interest, in standard deviations.
        reach_X2: lowest and highest score that can be reached on each axis.
    """
    complete_Q = ~np.isnan(y_QCX).any((1, 2))
    y_QCX, stratum_Q, count_BQ = y_QCX[complete_Q], stratum_Q[complete_Q], count_BQ[:, complete_Q]
    stratum_Q = np.unique(stratum_Q, return_inverse=True)[1]
    none, a, b, ab, ba = np.moveaxis(y_QCX, 1, 0)
    sign_X = np.sign([(a - none)[:, 0].mean(), (b - none)[:, 1].mean()])
    both = (ab + ba) / 2
    interaction_QX = (both - a - b + none) * sign_X
    # On its own axis, a value that stands last gains what it loses when it stands first.
    order_Q = ((ba - ab)[:, 0] * sign_X[0] + (ab - ba)[:, 1] * sign_X[1]) / 2
    d_QJ = np.column_stack([interaction_QX, order_Q])
    effects = stratified(d_QJ, stratum_Q)
    t_BJ = deviations(d_QJ, stratum_Q, count_BQ, effects)
    critical, critical_90 = critical_value(t_BJ, 0.95), critical_value(t_BJ, 0.9)
    intervals = [
        Interval(float(x), float(e), critical, critical_90) for x, e in zip(effects.estimate_J, effects.error_J, strict=True)
    ]
    shift_QJ = np.column_stack([a - none, b - none, both - none])
    shifts = stratified(shift_QJ, stratum_Q)
    weights, dominance = _weights(shift_QJ, shifts, stratum_Q, count_BQ)
    sum_X, both_X = shifts.estimate_J[:2] + shifts.estimate_J[2:4], shifts.estimate_J[4:]
    room_X = _room(stratified(none, stratum_Q).estimate_J + sum_X, reach_X2)
    lengths = float(np.linalg.norm(both_X)), float(np.linalg.norm(sum_X))
    cosine = float(both_X @ sum_X) / (lengths[0] * lengths[1]) if min(lengths) > 0 else np.nan
    dominant = _dominant(dominance)
    return Composition(
        _name(intervals, dominant, margin, room_X),
        (intervals[0], intervals[1]),
        intervals[2],
        dominance,
        dominant,
        _hotelling(effects, interaction_QX, stratum_Q),
        weights,
        float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
        lengths[0] / lengths[1] if lengths[1] > 0 else np.nan,
        _strongest_over_sum(shift_QJ, stratum_Q),
        tuple(axis for axis, room in zip("ab", room_X, strict=True) if not room),
    )


def _room(sum_X: np.ndarray, reach_X2: np.ndarray) -> np.ndarray:
    # A part of the responses reaches the end before their mean does.
    return (sum_X - 1 >= reach_X2[:, 0]) & (sum_X + 1 <= reach_X2[:, 1])


def _name(intervals: list[Interval], dominant: str, margin: float, room_X: np.ndarray) -> Name:
    """The most specific claim: dominance explains an interaction, and an order effect what else differs between prompts."""
    if not room_X.any():
        return "no room"
    if dominant in ("a", "b"):
        return "dominance"
    order = intervals[2]
    if order.low > margin or order.high < -margin:
        return "order effect"
    with_room = [interval for interval, room in zip(intervals[:2], room_X, strict=True) if room]
    if all(interval.within(margin) for interval in with_room):
        return "additive"
    if any(interval.high < -margin for interval in with_room):
        return "sub-additive"
    if any(interval.low > margin for interval in with_room):
        return "super-additive"
    return "undetermined"


def _dominant(dominance: tuple[float, float, float]) -> str:
    _, low, high = dominance
    if low > MIN_DOMINANCE:
        return "a"
    if high < -MIN_DOMINANCE:
        return "b"
    return "none" if low > -MIN_DOMINANCE and high < MIN_DOMINANCE else "undetermined"


def _weights(
    shift_QJ: np.ndarray, shifts: Effects, stratum_Q: np.ndarray, count_BQ: np.ndarray
) -> tuple[tuple[float, float], tuple[float, float, float]]:
    """The weights, and the dominance with the interval of the draws.

    The shifts share the default and are noisy, so that a regression over queries would be biased: weights solve the equation of
    the means, and their spread comes from draws of whole queries.
    """
    drawn_BJ, _ = redrawn_means(shift_QJ, stratum_Q, count_BQ)
    mean_BJ = np.vstack([shifts.estimate_J, drawn_BJ])
    a_B2, b_B2, both_B2 = mean_BJ[:, :2], mean_BJ[:, 2:4], mean_BJ[:, 4:]
    determinant_B = a_B2[:, 0] * b_B2[:, 1] - a_B2[:, 1] * b_B2[:, 0]
    determinant_B = np.where(np.abs(determinant_B) > 1e-12, determinant_B, np.nan)
    w_a_B = (both_B2[:, 0] * b_B2[:, 1] - both_B2[:, 1] * b_B2[:, 0]) / determinant_B
    w_b_B = (a_B2[:, 0] * both_B2[:, 1] - a_B2[:, 1] * both_B2[:, 0]) / determinant_B
    total_B = w_a_B + w_b_B
    ratio_B = (w_a_B - w_b_B) / np.where(np.abs(total_B) > 1e-12, total_B, np.nan)
    drawn = ratio_B[1:][~np.isnan(ratio_B[1:])]
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
    return (float(w_a_B[0]), float(w_b_B[0])), (float(ratio_B[0]), float(low), float(high))


def _hotelling(effects: Effects, interaction_QX: np.ndarray, stratum_Q: np.ndarray) -> float:
    """p-value of Hotelling's T² for no interaction on both axes, with the covariance within the strata."""
    num_strata = int(stratum_Q.max()) + 1
    covariance = np.zeros((2, 2))
    for stratum in range(num_strata):
        of_stratum = interaction_QX[stratum_Q == stratum]
        if len(of_stratum) >= 2:
            covariance += np.cov(of_stratum.T) / len(of_stratum) / num_strata**2
    freedom = len(interaction_QX) - num_strata
    if freedom < 2 or np.linalg.det(covariance) <= 0:
        return np.nan
    mean_X = effects.estimate_J[:2]
    t2 = float(mean_X @ np.linalg.solve(covariance, mean_X))
    return float(f.sf(t2 * (freedom - 1) / (2 * freedom), 2, freedom - 1))


def _strongest_over_sum(shift_QJ: np.ndarray, stratum_Q: np.ndarray) -> tuple[float, float, float]:
    """Cross-validated squared error of the shift of both by the strongest alone, less that by the sum of both."""
    fold_Q = np.arange(len(shift_QJ)) % min(NUM_FOLDS, len(shift_QJ))
    difference_Q = np.full(len(shift_QJ), np.nan)
    for fold in np.unique(fold_Q):
        held_Q = fold_Q == fold
        mean_J = shift_QJ[~held_Q].mean(0)
        one, other, both = mean_J[:2], mean_J[2:4], mean_J[4:]
        # The strongest is the value whose own shift is nearer to that of both, in the training queries.
        strongest = one if ((one - both) ** 2).sum() < ((other - both) ** 2).sum() else other
        truth = shift_QJ[held_Q, 4:]
        difference_Q[held_Q] = ((truth - strongest) ** 2).sum(1) - ((truth - one - other) ** 2).sum(1)
    effects = stratified(difference_Q[:, None], stratum_Q)
    half = t.ppf(0.975, effects.freedom_J[0]) * effects.error_J[0]
    estimate = float(effects.estimate_J[0])
    return (estimate, float(estimate - half), float(estimate + half))
