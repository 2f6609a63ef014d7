"""The score of a text on a value, and what follows from several: comparisons and profiles."""

from typing import NamedTuple

import numpy as np
from scipy.stats import norm, t

from valueflow import api
from valueflow.api.responses import Band
from valueflow.evaluation.scoring import OVERSHOOT, Total
from valueflow.judging.kind import Relevance
from valueflow.numerics.intervals import Z95
from valueflow.ranking import relevance
from valueflow.ranking.content_error import ContentError
from valueflow.records import LIMIT

MIN_AGREEMENT = 0.01  # of a judge with people, squared correlation: below it a mean over texts tells nothing either
# Upper ends of the bands of a profile, points of intensity.
BANDS: tuple[tuple[float, Band], ...] = (
    (-6.0, "very low"),
    (-2.0, "low"),
    (2.0, "neutral"),
    (6.0, "high"),
    (np.inf, "very high"),
)


class TextScore(NamedTuple):
    """Score of one text on one value after all rounds.

    Attributes:
        score: None if no window has a valid answer.
        num_windows: windows with a valid answer.
        num_failed: windows without one.
        error: reason for a missing score or failed windows.
        p_G: posterior weights of the judge's intensity on the evaluator's grid; None unless needed for a comparison.
        num_anchors: anchors that the text was compared with.
        truncated: whether the judge read the beginning of the text only.
    """

    score: Total | None
    num_windows: int
    num_failed: int
    error: str | None
    p_G: np.ndarray | None = None
    num_anchors: int = 0
    truncated: bool = False


def to_api(index: int, value: str, result: TextScore) -> api.Scored:
    """Return a score in the wire format; `index` is that of the text in the request."""
    score = result.score._asdict() if result.score else dict.fromkeys(Total._fields)
    return api.Scored(
        index=index, value=value, **score,
        num_windows=result.num_windows, num_failed=result.num_failed, error=result.error,
        truncated=result.truncated,
    )  # fmt: skip


def probability_higher(
    first: TextScore, second: TextScore, content_error: ContentError, known: Relevance = "none"
) -> float | None:
    """Return the probability that people's intensity of the first text is higher, or None if either text has no score.

    Errors that texts share (of zero, unit and slope) cancel. Ties count one half: equal grid points of two posteriors, or equal
    point estimates without any spread. Without posteriors (mode fast) the judge's errors are taken as normal, with the standard
    deviations of the two 95 % intervals. Where `known` is apart, a text that does not concern the value is at zero.
    """
    if first.score is None or second.score is None:
        return None
    scores = (first.score, second.score)
    own_variance = 0.0
    if first.p_G is not None and second.p_G is not None:
        p_D = np.convolve(first.p_G, second.p_G[::-1])  # of the differences, in steps of the grid
        step = 2 * (LIMIT + OVERSHOOT) / (len(first.p_G) - 1)
        difference_D = step * (np.arange(len(p_D)) - (len(first.p_G) - 1))
    else:
        own_variance = sum(((score.judge_high - score.judge_low) / (2 * Z95)) ** 2 for score in scores)
        p_D, difference_D = np.ones(1), np.array([scores[0].judge_intensity - scores[1].judge_intensity])
    content = sum(float(content_error.text_variance(text.num_anchors)) for text in (first, second))
    sd = content_error.factor * float(np.sqrt(content_error.slope**2 * own_variance + content))
    difference_D = content_error.slope * difference_D
    higher_D = norm.cdf(difference_D / sd) if sd else 0.5 + 0.5 * np.sign(difference_D)
    higher = float(np.clip(p_D @ higher_D, 0.0, 1.0))
    if known != "apart":
        return higher
    concern, positive = zip(*(_concern_and_sign(score, content_error) for score in scores), strict=True)
    absent = [1 - c for c in concern]
    at_zero = concern[0] * absent[1] * positive[0] + absent[0] * concern[1] * (1 - positive[1]) + absent[0] * absent[1] / 2
    return float(np.clip(concern[0] * concern[1] * higher + at_zero, 0.0, 1.0))


def _concern_and_sign(score: Total, content_error: ContentError) -> tuple[float, float]:
    """The probability that a text concerns the value, and that its intensity is then above zero."""
    own_3 = np.array([score.judge_intensity, score.judge_low, score.judge_high])[:, None]
    mean, low, high = (float(column[0]) for column in content_error.total(*own_3))
    sd = (mean - low if mean > 0 else high - mean) / Z95
    unknown = np.nan if score.relevance is None else score.relevance
    return float(relevance.concern(np.array(unknown))), float(norm.cdf(mean / sd)) if sd else 0.5 + 0.5 * float(np.sign(mean))


def mean_profile(value: str, scores: list[api.Scored], content_error: ContentError, min_relevance: float = 0.0) -> api.Profiled:
    """Return the mean of people's intensities of a value over texts, with its 95 % interval.

    The texts are a sample of what the person writes. The content errors of the texts average out, so the mean is moved towards
    the average of all texts less than each text is: with S the spread of people's intensities and tau² the variance of an
    unmoved intensity around people's, by S² / (S² + tau² / number). The error that remains is that of the sample (variance
    between texts and mean squared sampling error), of the move, and what the texts share: zero, unit, slope. A single text
    keeps the interval of its score. Texts of less relevance than `min_relevance` are left out; those of unknown relevance not.
    """
    scored = [score for score in scores if score.value == value and score.intensity is not None]
    missing = (score for score in scores if score.value == value and score.intensity is None)
    size = len(scored)
    scored = [score for score in scored if score.relevance is None or score.relevance >= min_relevance]
    num_left_out = size - len(scored)
    error = next((score.error or "no window has a valid answer" for score in missing), None)
    if not scored:
        if num_left_out:
            error = error or f"no text concerns {value}: the relevance of all is below {min_relevance:g} (min_relevance)"
        return api.Profiled(
            value=value, intensity=None, low=None, high=None, num_texts=0, num_left_out=num_left_out, band=None, error=error
        )
    mean, low, high, size = *_sample_mean(scored, content_error), len(scored)
    if size == 1:
        mean, low, high = (float(x or 0.0) for x in (scored[0].intensity, scored[0].low, scored[0].high))
    return api.Profiled(
        value=value, intensity=mean, low=low, high=high, num_texts=size, num_left_out=num_left_out, band=band(mean), error=error
    )


def band(intensity: float) -> Band:
    """Return the band of a mean intensity in words."""
    return next(name for end, name in BANDS if intensity <= end)


def _sample_mean(scored: list[api.Scored], error: ContentError) -> tuple[float, float, float]:
    """The mean and its interval, clipped to [-10, 10]."""
    own_3T = np.array([[s.judge_intensity, s.judge_low, s.judge_high] for s in scored], float).T
    size, middle = own_3T.shape[1], error.intercept + error.slope * error.center
    agreement = float(np.clip(1 - (error.sd / error.spread) ** 2, MIN_AGREEMENT, 1.0)) if error.spread else 1.0
    unmoved_T = middle + error.slope * (own_3T[0] - error.center) / agreement
    sampling_T = error.slope / agreement * (own_3T[2] - own_3T[1]) / (2 * Z95)
    content_variance = error.sd**2 / agreement
    move = error.spread**2 / (error.spread**2 + content_variance / size) if content_variance else 1.0
    mean = middle + move * float(unmoved_T.mean() - middle)
    between = float(unmoved_T.var(ddof=1)) if size > 1 else content_variance
    sample = (between + float((sampling_T**2).mean())) / size
    shared = error.shared_sd**2 + (move / agreement * error.slope_sd * float(own_3T[0].mean() - error.center)) ** 2
    rest = ((1 - move) * error.spread) ** 2 + shared
    quantile = float(t.ppf(0.975, max(size - 1, 1)))
    half = error.factor * float(np.sqrt((quantile * move) ** 2 * sample + Z95**2 * rest))
    return max(min(mean, LIMIT), -LIMIT), max(mean - half, -LIMIT), min(mean + half, LIMIT)
