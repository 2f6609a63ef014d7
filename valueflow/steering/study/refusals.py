"""What refusals do to an effect: five readings side by side, and a verdict that says where they differ.

A response that is no answer (a refusal, a broken one) is missing not at random: a model refuses what it would have expressed
most strongly. Scored as it stands, a refusal reads prosocial and looks like steering that failed.

    as scored      every response with its score
    answered only  the answers alone
    Manski         non-answers at the lowest and at the highest score that can be reached (Manski 1990)
    Lee            the level with more answers is trimmed at either end to the share of the other, within sources (Lee 2009,
                   doi:10.1111/j.1467-937X.2009.00536.x): the effect on what is answered at both levels, if steering only
                   adds non-answers or only removes them
    tipping point  the mean of non-answers at which the verdict of the answers flips

Shapes: Q queries, R replicates, B draws of the queries.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from valueflow.numerics.intervals import Z95
from valueflow.steering.study.effects import stratified
from valueflow.steering.study.verdicts import Side

NUM_POINTS = 161  # of the search for the tipping point
DEPENDS = "depends on refusals"


class Responses(NamedTuple):
    """Scores of one level, and which responses are answers.

    An answer without a score, as where a query has fewer responses than others, does not count.
    """

    y_QR: np.ndarray
    answered_QR: np.ndarray

    @property
    def share(self) -> float:
        """Share of non-answers."""
        refused = int((~self.answered_QR).sum())
        total = refused + int((self.answered_QR & ~np.isnan(self.y_QR)).sum())
        return refused / total if total else np.nan


class Reading(NamedTuple):
    """An effect, or bounds of it, under one treatment of non-answers.

    Attributes:
        name: of the treatment.
        low: lower bound of the effect; equal to `high` for an estimate.
        high: upper bound.
        interval_low: lower end of the interval of the bounds.
        interval_high: upper end.
        side: verdict against the margin.
    """

    name: str
    low: float
    high: float
    interval_low: float
    interval_high: float
    side: Side


class RefusalStudy(NamedTuple):
    """All readings of one effect.

    Attributes:
        readings: as scored, answered only, Manski, Lee.
        verdict: the side on which all agree, or "depends on refusals".
        tipping: mean score of the level's non-answers at which the verdict of the answers flips; None where none does.
        share: of non-answers at the level.
        share_default: of non-answers in the default.
        mcnemar_p: exact p-value that both levels have non-answers equally often.
    """

    readings: tuple[Reading, ...]
    verdict: str
    tipping: float | None
    share: float
    share_default: float
    mcnemar_p: float


class Rule(NamedTuple):
    """How bounds become a verdict: margin in points, intended direction (1 or -1), critical values, reach of scores."""

    margin: float
    direction: int
    critical: float
    critical_90: float
    reach: tuple[float, float]


def refusal_study(
    level: Responses, default: Responses, stratum_Q: np.ndarray, count_BQ: np.ndarray, rule: Rule
) -> RefusalStudy:
    """Return all readings of the effect of a level against the default."""
    low, high = rule.reach
    scored_Q = _mean(level.y_QR) - _mean(default.y_QR)
    answered_Q = _answers(level) - _answers(default)
    bottom_Q = _filled(level, low) - _filled(default, high)
    top_Q = _filled(level, high) - _filled(default, low)
    readings = (
        _reading("as scored", scored_Q, scored_Q, stratum_Q, rule),
        _reading("answered only", answered_Q, answered_Q, stratum_Q, rule),
        _reading("Manski bounds", bottom_Q, top_Q, stratum_Q, rule),
        _lee(level, default, stratum_Q, count_BQ, rule),
    )
    sides = {reading.side for reading in readings}
    refused_Q, refused0_Q = ~level.answered_QR.all(1), ~default.answered_QR.all(1)
    more, fewer = int((refused_Q & ~refused0_Q).sum()), int((refused0_Q & ~refused_Q).sum())
    return RefusalStudy(
        readings,
        sides.pop() if len(sides) == 1 else DEPENDS,
        _tipping(level, default, stratum_Q, rule),
        level.share,
        default.share,
        float(binomtest(more, more + fewer).pvalue) if more + fewer else 1.0,
    )


def _mean(y_QR: np.ndarray) -> np.ndarray:
    """Mean over the replicates that have a score; NaN where none has."""
    valid_QR = ~np.isnan(y_QR)
    total_Q = np.where(valid_QR, y_QR, 0.0).sum(1)
    return np.divide(total_Q, valid_QR.sum(1), out=np.full(len(y_QR), np.nan), where=valid_QR.any(1))


def _answers(responses: Responses) -> np.ndarray:
    return _mean(np.where(responses.answered_QR, responses.y_QR, np.nan))


def _filled(responses: Responses, score: float) -> np.ndarray:
    return _mean(np.where(responses.answered_QR, responses.y_QR, score))


def side_of(low: float, high: float, low_error: float, high_error: float, rule: Rule) -> Side:
    """Return the verdict of bounds: it holds for every effect between them."""
    if np.isnan([low, high, low_error, high_error]).any():
        return "undetermined"
    if rule.direction < 0:
        low, high, low_error, high_error = -high, -low, high_error, low_error
    if low - rule.critical * low_error > rule.margin:
        return "moved"
    if high + rule.critical * high_error < -rule.margin:
        return "reversed"
    within = low - rule.critical_90 * low_error > -rule.margin and high + rule.critical_90 * high_error < rule.margin
    return "still" if within else "undetermined"


def _bounds(name: str, low: float, high: float, low_error: float, high_error: float, rule: Rule) -> Reading:
    ends = low - rule.critical * low_error, high + rule.critical * high_error
    return Reading(name, low, high, *ends, side_of(low, high, low_error, high_error, rule))


def _reading(name: str, low_Q: np.ndarray, high_Q: np.ndarray, stratum_Q: np.ndarray, rule: Rule) -> Reading:
    effects = stratified(np.stack([low_Q, high_Q], 1), stratum_Q)
    (low, high), (low_error, high_error) = effects.estimate_J, effects.error_J
    return _bounds(name, float(low), float(high), float(low_error), float(high_error), rule)


def _lee(level: Responses, default: Responses, stratum_Q: np.ndarray, count_BQ: np.ndarray, rule: Rule) -> Reading:
    """Lee's bounds; standard errors from the draws of the queries."""
    weight_BQ = np.vstack([np.ones(len(stratum_Q)), count_BQ])
    low_B, high_B, num_strata = np.zeros(len(weight_BQ)), np.zeros(len(weight_BQ)), 0
    for stratum in np.unique(stratum_Q):
        (rows,) = np.nonzero(stratum_Q == stratum)
        if not (level.answered_QR[rows].any() and default.answered_QR[rows].any()):
            continue  # no response of the source is answered at both levels: nothing to say about it
        num_strata += 1
        of_level, of_default = (_Tails(r.y_QR[rows], r.answered_QR[rows], weight_BQ[:, rows]) for r in (level, default))
        with np.errstate(divide="ignore", invalid="ignore"):  # a draw may hold no answer of a small source
            keep_B = of_level.share_B / of_default.share_B
            low_B += of_level.mean(1 / keep_B, top=False) - of_default.mean(keep_B, top=True)
            high_B += of_level.mean(1 / keep_B, top=True) - of_default.mean(keep_B, top=False)
    low_B, high_B = (x_B / num_strata if num_strata else np.full(len(x_B), np.nan) for x_B in (low_B, high_B))
    errors = tuple(float(np.nanstd(x_B[1:], ddof=1)) if num_strata else np.nan for x_B in (low_B, high_B))
    return _bounds("Lee bounds", float(low_B[0]), float(high_B[0]), errors[0], errors[1], rule)


class _Tails:
    """Answers of one level and source in ascending order, with the weight of each in every draw."""

    def __init__(self, y_qR: np.ndarray, answered_qR: np.ndarray, weight_Bq: np.ndarray) -> None:
        valid_qR = answered_qR & ~np.isnan(y_qR)
        query, _ = np.nonzero(valid_qR)
        order = np.argsort(y_qR[valid_qR], kind="stable")
        self.y_N, self.weight_BN = y_qR[valid_qR][order], weight_Bq[:, query[order]]
        self.total_B = self.weight_BN.sum(1)
        self.share_B = self.total_B / (weight_Bq.sum(1) * y_qR.shape[1])

    def mean(self, keep_B: np.ndarray, top: bool) -> np.ndarray:
        """Mean of the highest or lowest share of the answers (B,); of all where the share is above 1."""
        y_N, weight_BN = (self.y_N[::-1], self.weight_BN[:, ::-1]) if top else (self.y_N, self.weight_BN)
        limit_B = np.minimum(keep_B, 1.0) * self.total_B
        before_BN = np.cumsum(weight_BN, 1) - weight_BN
        kept_BN = np.clip(limit_B[:, None] - before_BN, 0.0, weight_BN)
        return kept_BN @ y_N / kept_BN.sum(1)


def _tipping(level: Responses, default: Responses, stratum_Q: np.ndarray, rule: Rule) -> float | None:
    """The mean of the level's non-answers nearest to that of its answers at which the verdict is another.

    Non-answers vary around their mean like answers do: their variance is added to that of the effect.
    """
    answers = level.y_QR[level.answered_QR & ~np.isnan(level.y_QR)]
    share = level.share
    if not share > 0 or len(answers) < 2:
        return None
    default_Q, mean = _answers(default), float(answers.mean())
    score_P = np.linspace(*rule.reach, NUM_POINTS)
    d_QP = np.stack([_filled(level, score) - default_Q for score in [mean, *score_P]], 1)
    effects = stratified(d_QP, stratum_Q)
    added = share * float(answers.var(ddof=1)) / max(float(effects.num_J[0]), 1.0)
    error_P = np.sqrt(effects.error_J**2 + added)
    sides = [side_of(x, x, e, e, rule) for x, e in zip(effects.estimate_J.tolist(), error_P.tolist(), strict=True)]
    flips = [float(score) for score, of_score in zip(score_P, sides[1:], strict=True) if of_score != sides[0]]
    return min(flips, key=lambda score: abs(score - mean), default=None)


class Rate(NamedTuple):
    """A share with its 95 % interval."""

    estimate: float
    low: float
    high: float


def rogan_gladen(positives: int, total: int, sensitivity: Sequence[int], specificity: Sequence[int]) -> Rate:
    """Return the true share of non-answers behind a detector that errs (Rogan and Gladen 1978).

        p = (observed + specificity - 1) / (sensitivity + specificity - 1)

    Args:
        positives: responses that the detector calls non-answers.
        total: responses.
        sensitivity: of labelled non-answers, how many the detector recognizes, and how many there are.
        specificity: of labelled answers, how many the detector leaves, and how many there are.

    Returns:
        The share within [0, 1], with an interval by the delta method that includes the error of both rates; NaN for a detector
        that is no better than chance.
    """
    observed, se, sp = positives / total, sensitivity[0] / sensitivity[1], specificity[0] / specificity[1]
    gain = se + sp - 1
    if gain <= 0:
        return Rate(np.nan, np.nan, np.nan)
    share = (observed + sp - 1) / gain
    variance = (
        observed * (1 - observed) / total
        + share**2 * se * (1 - se) / sensitivity[1]
        + (1 - share) ** 2 * sp * (1 - sp) / specificity[1]
    ) / gain**2
    half = Z95 * float(np.sqrt(variance))
    return Rate(*(min(max(x, 0.0), 1.0) for x in (share, share - half, share + half)))
