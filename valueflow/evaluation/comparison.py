"""The score of a text on a value, and the comparison of two."""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from valueflow import api
from valueflow.evaluation.scoring import OVERSHOOT, Total
from valueflow.judging.kind import Relevance
from valueflow.numerics.intervals import Z95
from valueflow.ranking import relevance
from valueflow.ranking.content_error import ContentError
from valueflow.records import LIMIT


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
    higher_D = ndtr(difference_D / sd) if sd else 0.5 + 0.5 * np.sign(difference_D)
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
    concern = float(relevance.concern(np.array(unknown), content_error.agreement))
    return concern, float(ndtr(mean / sd)) if sd else 0.5 + 0.5 * float(np.sign(mean))
