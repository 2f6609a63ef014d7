"""The score of a text on a value, and what follows from several: comparisons and profiles."""

from typing import NamedTuple

import numpy as np
from scipy.stats import norm, t

from valueflow import api
from valueflow.evaluation.scoring import Score
from valueflow.numerics.intervals import Z95
from valueflow.records import LIMIT

# Upper ends of the bands of a profile, points of intensity.
BANDS = ((-6.0, "very low"), (-2.0, "low"), (2.0, "neutral"), (6.0, "high"), (np.inf, "very high"))


class TextScore(NamedTuple):
    """Score of one text on one value after all rounds.

    Attributes:
        score: None if no window has a valid answer.
        num_windows: windows with a valid answer.
        num_failed: windows without one.
        error: reason for a missing score or failed windows.
        p_G: posterior weights on the grid of the evaluator; None unless needed for a comparison.
    """

    score: Score | None
    num_windows: int
    num_failed: int
    error: str | None
    p_G: np.ndarray | None = None


def to_api(index: int, value: str, result: TextScore) -> api.Scored:
    """Return a score in the wire format; `index` is that of the text in the request."""
    score = result.score._asdict() if result.score else dict.fromkeys(Score._fields)
    return api.Scored(
        index=index, value=value, **score,
        num_windows=result.num_windows, num_failed=result.num_failed, error=result.error,
    )  # fmt: skip


def probability_higher(first: TextScore, second: TextScore) -> float | None:
    """Return the probability that the first intensity is higher, or None if either text has no score.

    Ties count one half: equal grid points of two posteriors, or equal point estimates without any spread. Without posteriors
    (mode fast) the errors are taken as normal, with the standard deviations of the two 95 % intervals.
    """
    if first.score is None or second.score is None:
        return None
    if first.p_G is not None and second.p_G is not None:
        return float(first.p_G @ (np.cumsum(second.p_G) - second.p_G / 2))
    sd_first, sd_second = ((score.high - score.low) / (2 * Z95) for score in (first.score, second.score))
    sd = float(np.hypot(sd_first, sd_second))
    difference = first.score.intensity - second.score.intensity
    return float(norm.cdf(difference / sd)) if sd else 0.5 + 0.5 * float(np.sign(difference))


def mean_profile(value: str, scores: list[api.Scored]) -> api.Profiled:
    """Return the mean intensity of a value over texts, with the 95 % t interval of the mean.

    The texts are a sample of what the person writes, each score with an error of its own: the variance of the mean is
    (sample variance + mean squared standard error) / number of texts. A single text keeps the interval of its score.
    """
    scored = [score for score in scores if score.value == value and score.intensity is not None]
    missing = (score for score in scores if score.value == value and score.intensity is None)
    error = next((score.error or "no window has a valid answer" for score in missing), None)
    if not scored:
        return api.Profiled(value=value, intensity=None, low=None, high=None, num_texts=0, band=None, error=error)
    intensity_T = np.array([score.intensity for score in scored])
    error_T = np.array([(score.high or 0.0) - (score.low or 0.0) for score in scored]) / (2 * Z95)
    mean, size = float(intensity_T.mean()), len(scored)
    if size == 1:
        low, high = scored[0].low, scored[0].high
    else:
        half = float(t.ppf(0.975, size - 1) * np.sqrt((intensity_T.var(ddof=1) + (error_T**2).mean()) / size))
        low, high = max(mean - half, -LIMIT), min(mean + half, LIMIT)
    band = next(name for end, name in BANDS if mean <= end)
    return api.Profiled(value=value, intensity=mean, low=low, high=high, num_texts=size, band=band, error=error)
