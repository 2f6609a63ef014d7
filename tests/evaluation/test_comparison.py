"""Comparisons carry the content error of both texts; shared errors cancel."""

import numpy as np
import pytest

from valueflow.evaluation.comparison import TextScore, probability_higher
from valueflow.evaluation.scoring import GRID_POINTS, OVERSHOOT, totals
from valueflow.numerics.intervals import Z95
from valueflow.ranking.content_error import ContentError
from valueflow.records import LIMIT

EXACT = ContentError()
POINTS_G = np.linspace(-LIMIT - OVERSHOOT, LIMIT + OVERSHOOT, GRID_POINTS)


def scored(x: float, sd: float, error: ContentError) -> TextScore:
    """A text whose judge's posterior is N(x, sd²)."""
    p_G = np.exp(-(((POINTS_G - x) / max(sd, 1e-3)) ** 2) / 2)
    (total,) = totals(error, np.array([[x], [x - Z95 * sd], [x + Z95 * sd]]))
    return TextScore(total, 3, 0, None, p_G / p_G.sum())


def test_without_content_error_the_probability_is_that_of_the_two_posteriors():
    first, second = scored(1.0, 1.0, EXACT), scored(0.0, 2.0, EXACT)
    expected = float(first.p_G @ (np.cumsum(second.p_G) - second.p_G / 2))
    assert probability_higher(first, second, EXACT) == pytest.approx(expected, abs=1e-9)
    assert probability_higher(first, first, EXACT) == pytest.approx(0.5)


@pytest.mark.parametrize("with_posterior", [True, False])
def test_content_error_of_both_texts_makes_a_comparison_less_certain_and_shared_error_does_not(with_posterior):
    error = ContentError(slope=0.6, sd=2.0, shared_sd=5.0, slope_sd=0.2, intercept=3.0)
    first, second = scored(3.0, 1.0, error), scored(-2.0, 0.5, error)
    if not with_posterior:
        first, second = (text._replace(p_G=None) for text in (first, second))
    rng = np.random.default_rng(0)
    draws = [0.6 * rng.normal(x, sd, 200_000) + rng.normal(0, 2, 200_000) for x, sd in ((3.0, 1.0), (-2.0, 0.5))]
    expected = (draws[0] > draws[1]).mean()
    assert probability_higher(first, second, error) == pytest.approx(expected, abs=0.005)


def test_a_judge_without_a_slope_cannot_tell_two_texts_apart():
    error = ContentError(slope=0.0, sd=4.0)
    assert probability_higher(scored(9.0, 0.1, error), scored(-9.0, 0.1, error), error) == pytest.approx(0.5)
