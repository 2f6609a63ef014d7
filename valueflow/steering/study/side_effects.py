"""What steering on one value does to the others: a matrix of effects, and how far the shift misses its target.

A cheap judge scores every response on every value, the study's judge a random subset; the difference corrects the cheap one
(`evaluation.prediction_powered`), however biased that is.

Goal space (Tan et al. 2505.23816): with z0 the default, z* the target and z the achieved scores over the values,

    steering error   |z - z*|
    miscalibration   |projection of z* - z on z* - z0| / |z* - z0|       how far off along the intended direction
    orthogonality    |part of z - z0 orthogonal to z* - z0| / |z - z0|   how much of the shift is side effect

A norm of noisy numbers is too large, so the variances of the means are subtracted from the squared norms.

Shapes: V steered values, W scored values, Q queries, B draws.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from valueflow.errors import InputError
from valueflow.evaluation.prediction_powered import Sample, mean
from valueflow.numerics.p_values import benjamini_hochberg
from valueflow.steering.study.effects import stratified
from valueflow.steering.study.simultaneous import redrawn_means


class Matrix(NamedTuple):
    """Effects of steering on V values on the scores of W values, in points of each scored value.

    Attributes:
        estimate_VW: effects; NaN where too few responses are scored.
        low_VW: lower ends of 95 % intervals, each for its own cell.
        high_VW: upper ends.
        error_VW: standard errors.
        adjusted_VW: p-values adjusted by the false discovery rate over the matrix.
        trusted_VW: queries with a score of the study's judge.
        weight_VW: weight of the cheap judge; 0 where it adds nothing.
    """

    estimate_VW: np.ndarray
    low_VW: np.ndarray
    high_VW: np.ndarray
    error_VW: np.ndarray
    adjusted_VW: np.ndarray
    trusted_VW: np.ndarray
    weight_VW: np.ndarray


def side_effects(trusted_VWQ: np.ndarray, cheap_VWQ: np.ndarray | None, stratum_Q: np.ndarray) -> Matrix:
    """Return the matrix.

    Args:
        trusted_VWQ: differences from the default by the study's judge; NaN outside its random subset.
        cheap_VWQ: the same by the cheap judge, of all queries; None: there is none.
        stratum_Q: sources; used where no cheap judge corrects.
    """
    shape = trusted_VWQ.shape[:2]
    cells = np.full((*shape, 6), np.nan)
    for v, w in np.ndindex(*shape):
        cells[v, w] = _cell(trusted_VWQ[v, w], None if cheap_VWQ is None else cheap_VWQ[v, w], stratum_Q)
    estimate, low, high, error, trusted, weight = np.moveaxis(cells, 2, 0)
    z = np.divide(np.abs(estimate), error, out=np.full(shape, np.nan), where=error > 0)
    adjusted = benjamini_hochberg(2 * norm.sf(z).ravel()).reshape(shape)
    return Matrix(estimate, low, high, error, adjusted, trusted, weight)


def _cell(trusted_Q: np.ndarray, cheap_Q: np.ndarray | None, stratum_Q: np.ndarray) -> tuple[float, ...]:
    num_trusted = float((~np.isnan(trusted_Q)).sum())
    if cheap_Q is not None and not np.isnan(cheap_Q).all():
        scored_Q = ~np.isnan(cheap_Q)
        try:
            corrected = mean(Sample(cheap_Q[scored_Q], trusted_Q[scored_Q]))
        except InputError:  # fewer than two trusted scores, or all equal: no interval follows
            return (np.nan, np.nan, np.nan, np.nan, num_trusted, np.nan)
        return (*corrected[:4], float(corrected.num_trusted), corrected.judge_weights[0])
    effects = stratified(trusted_Q[:, None], stratum_Q)
    low_J, high_J = effects.interval()
    return (effects.estimate_J[0], low_J[0], high_J[0], effects.error_J[0], num_trusted, 0.0)


class Goal(NamedTuple):
    """How far a shift misses its target; each with the ends of its 95 % interval. NaN where it is not defined.

    Attributes:
        error: steering error, in standard deviations; needs a target.
        miscalibration: needs a target.
        orthogonality: share from 0 (no side effect) to 1 (side effect only).
    """

    error: tuple[float, float, float]
    miscalibration: tuple[float, float, float]
    orthogonality: tuple[float, float, float]


def goal(shift_QW: np.ndarray, direction_W: np.ndarray, stratum_Q: np.ndarray, count_BQ: np.ndarray, has_target: bool) -> Goal:
    """Return the distance of a shift from its target.

    Args:
        shift_QW: z - z0 of each query, in standard deviations of each value.
        direction_W: z* - z0; its length counts only where there is a target.
        stratum_Q: sources.
        count_BQ: draws of the queries.
        has_target: whether the length of the direction was requested, as in regime user_texts; else only the direction was.
    """
    effects = stratified(shift_QW, stratum_Q)
    mean_BW, _ = redrawn_means(shift_QW, stratum_Q, count_BQ)
    point = _distances(effects.estimate_J[None], direction_W, effects.error_J)[:, 0]
    # A draw of the queries has the error of the estimate once more.
    draws_3B = _distances(mean_BW, direction_W, np.sqrt(2.0) * effects.error_J)
    ends = np.nanquantile(draws_3B, [0.025, 0.975], axis=1)
    triples = [(float(point[i]), float(ends[0, i]), float(ends[1, i])) for i in range(3)]
    if not has_target:
        triples[0] = triples[1] = (np.nan, np.nan, np.nan)
    return Goal(*triples)


def _distances(shift_BW: np.ndarray, direction_W: np.ndarray, error_W: np.ndarray) -> np.ndarray:
    """Steering error, miscalibration and orthogonality of B shifts (3, B), without what their noise adds."""
    length = float(np.linalg.norm(direction_W))
    unit_W = direction_W / length
    along_B = shift_BW @ unit_W
    noise_along, noise = float(unit_W**2 @ error_W**2), float((error_W**2).sum())
    missed_B = ((shift_BW - direction_W) ** 2).sum(1) - noise
    total_B = np.maximum((shift_BW**2).sum(1) - noise, 0.0)
    aside_B = np.clip((shift_BW**2).sum(1) - along_B**2 - (noise - noise_along), 0.0, None)
    share_B = np.divide(aside_B, total_B, out=np.full(len(total_B), np.nan), where=total_B > 0)
    return np.stack([
        np.sqrt(np.maximum(missed_B, 0.0)), np.abs(length - along_B) / length, np.sqrt(np.minimum(share_B, 1.0)),
    ])  # fmt: skip


class DoseCurve(NamedTuple):
    """Requested against achieved intensity in regime user_texts: slope 1 is exact; each with its 95 % interval."""

    slope: tuple[float, float, float]
    rows: list[tuple[float, float, float, float]]  # requested, achieved, low, high


def dose_curve(requested_L: np.ndarray, y_QL: np.ndarray, stratum_Q: np.ndarray) -> DoseCurve:
    """Return the calibration curve of requests; `y_QL` has the scores of every query at each requested intensity."""
    centered_L = requested_L - requested_L.mean()
    columns = np.column_stack([y_QL @ centered_L / (centered_L @ centered_L), y_QL])
    effects = stratified(columns, stratum_Q)
    low_J, high_J = effects.interval()
    table = np.column_stack([effects.estimate_J, low_J, high_J])
    rows = [(float(x), *map(float, row)) for x, row in zip(requested_L, table[1:], strict=True)]
    slope = table[0].tolist()
    return DoseCurve((slope[0], slope[1], slope[2]), [(r[0], r[1], r[2], r[3]) for r in rows])
