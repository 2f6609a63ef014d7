"""Comparisons and profiles carry the content error: shared errors cancel in one and stay in the other."""

import numpy as np
import pytest

from valueflow import api
from valueflow.evaluation.comparison import TextScore, mean_profile, probability_higher
from valueflow.evaluation.scoring import GRID_POINTS, OVERSHOOT, Total, totals
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


def row(x: float, sd: float, error: ContentError) -> api.Scored:
    score = scored(x, sd, error).score
    assert score
    return api.Scored(index=0, value="svt:power", **score._asdict(), num_windows=3, num_failed=0)


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


def test_a_profile_of_one_text_is_its_score():
    error = ContentError(slope=0.5, sd=2.0, spread=4.0)
    only = row(6.0, 1.0, error)
    profile = mean_profile("svt:power", [only], error)
    assert (profile.intensity, profile.low, profile.high) == (only.intensity, only.low, only.high)


def test_without_content_error_a_profile_is_the_mean_with_its_t_interval():
    rows = [row(x, 0.5, EXACT) for x in (1.0, 3.0, 2.0, 4.0)]
    profile = mean_profile("svt:power", rows, EXACT)
    half = 3.182446 * np.sqrt((np.var([1, 3, 2, 4], ddof=1) + 0.25) / 4)
    assert profile.intensity == pytest.approx(2.5)
    assert profile.high - profile.intensity == pytest.approx(half, rel=1e-4)


def test_the_error_that_texts_share_does_not_average_out():
    error = ContentError(shared_sd=2.0)
    rows = [row(x, 0.1, error) for x in np.tile([-1.0, 1.0], 200)]
    profile = mean_profile("svt:power", rows, error)
    assert profile.high - profile.low == pytest.approx(2 * Z95 * 2.0, rel=0.02)


@pytest.mark.parametrize("size", [3, 10, 40])
def test_profiles_hold_the_mean_of_what_people_would_say(size):
    """Persons ~ N(0, 3²), their texts ~ N(person, 2²): all texts have the spread that the judge was calibrated on."""
    rng, covered, errors, shrunk = np.random.default_rng(size), [], [], []
    spread, content = np.sqrt(13.0), 3.0
    rho2 = 13.0 / (13.0 + content**2)
    error = ContentError(slope=rho2, sd=spread * np.sqrt(1 - rho2), spread=spread)
    for _ in range(300):
        person = rng.normal(0, 3.0)
        judge = rng.normal(person, 2.0, size) + content * rng.normal(size=size)
        rows = [
            api.Scored(index=0, value="svt:power", **Total(0, 0, 0, x, x - 0.1, x + 0.1)._asdict(), num_windows=3, num_failed=0)
            for x in judge
        ]
        profile = mean_profile("svt:power", rows, error)
        covered.append(profile.low <= person <= profile.high)
        errors.append(profile.intensity - person)
        shrunk.append(rho2 * judge.mean() - person)
    assert np.mean(covered) >= 0.93
    assert np.mean(covered) <= 0.99
    if size == 40:  # the mean of many texts needs less of the move that a single text needs
        assert np.mean(np.square(errors)) < 0.8 * np.mean(np.square(shrunk))
