"""What is known of a text on a value once its windows are answered, and what follows from it: comparisons and profiles."""

from typing import NamedTuple

import numpy as np
from scipy.stats import norm, t

from valueflow import api
from valueflow.evaluation.scoring import Score
from valueflow.numerics.intervals import Z95
from valueflow.records import LIMIT

# Ends of the bands of a profile, points of intensity.
BANDS = ((-6.0, "very low"), (-2.0, "low"), (2.0, "neutral"), (6.0, "high"), (np.inf, "very high"))


class TextScore(NamedTuple):
    """What is known of one text and value after all rounds; no score where no window was answered."""

    score: Score | None
    num_windows: int
    num_failed: int
    error: str | None
    p_G: np.ndarray | None = None


def to_api(index: int, value: str, standing: TextScore) -> api.Scored:
    """Return a standing as it goes over the wire."""
    score = standing.score._asdict() if standing.score else dict.fromkeys(Score._fields)
    return api.Scored(
        index=index, value=value, **score,
        num_windows=standing.num_windows, num_failed=standing.num_failed, error=standing.error,
    )  # fmt: skip


def probability_higher(first: TextScore, second: TextScore) -> float | None:
    """Return the probability that the first is higher, equal grid points by half; None where either has no score."""
    if first.score is None or second.score is None:
        return None
    if first.p_G is not None and second.p_G is not None:
        return float(first.p_G @ (np.cumsum(second.p_G) - second.p_G / 2))
    one, other = ((score.high - score.low) / (2 * Z95) for score in (first.score, second.score))
    spread = float(np.hypot(one, other))
    apart = first.score.intensity - second.score.intensity
    return float(norm.cdf(apart / spread)) if spread else 0.5 + 0.5 * float(np.sign(apart))


def mean_profile(value: str, scores: list[api.Scored]) -> api.Profiled:
    """Return mean and interval: texts are a sample of what the person writes, each with an error of its own."""
    mine = [s for s in scores if s.value == value and s.intensity is not None]
    if not mine:
        return api.Profiled(value=value, intensity=None, low=None, high=None, num_texts=0, band=None)
    intensity_T = np.array([s.intensity for s in mine])
    error_T = np.array([(s.high or 0.0) - (s.low or 0.0) for s in mine]) / (2 * Z95)
    mean, size = float(intensity_T.mean()), len(mine)
    if size == 1:
        low, high = mine[0].low, mine[0].high
    else:
        half = float(t.ppf(0.975, size - 1) * np.sqrt((intensity_T.var(ddof=1) + (error_T**2).mean()) / size))
        low, high = max(mean - half, -LIMIT), min(mean + half, LIMIT)
    band = next(name for end, name in BANDS if mean <= end)
    return api.Profiled(value=value, intensity=mean, low=low, high=high, num_texts=size, band=band)
