"""Calibration has a real zero, never reverses two texts, and can be inverted."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from valueflow.errors import InputError
from valueflow.ranking.calibration import CalibrateConfig, Calibration, isotonic, neutral
from valueflow.vidb.candidates import CandidatesConfig

NUMBERS = st.floats(-1e3, 1e3)
HUNDREDTHS = st.integers(-1000, 1000).map(lambda number: number / 100)


def knots(size: int) -> st.SearchStrategy[list[float]]:
    steps = st.lists(st.floats(0.01, 10.0), min_size=size, max_size=size)
    return steps.map(lambda gaps: (np.cumsum(gaps) - np.sum(gaps) / 2).tolist())


CALIBRATIONS = st.integers(2, 6).flatmap(
    lambda size: st.builds(Calibration, mode=st.just("human"), theta=knots(size), intensity=knots(size))
)


@given(st.lists(NUMBERS, min_size=3, max_size=30), st.data())
def test_the_median_neutral_text_is_at_zero(theta, data):
    theta = np.array(theta)
    is_neutral = np.array(data.draw(st.lists(st.booleans(), min_size=len(theta), max_size=len(theta)).filter(any)))
    if np.quantile(np.abs(theta - np.median(theta[is_neutral])), 0.99) < 1e-6:
        return
    calibration = neutral(theta, is_neutral, 0.99)
    assert calibration.to_intensity(np.median(theta[is_neutral])) == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(calibration.unclipped(np.array(calibration.theta)), [-10.0, 10.0])
    assert (np.diff(calibration.to_intensity(np.sort(theta))) >= 0).all()


def test_the_extreme_quantile_is_at_ten_and_outliers_are_clipped():
    theta = np.append(np.linspace(-2.0, 4.0, 601), 400.0)
    calibration = neutral(theta, np.abs(theta) < 0.1, 0.9)
    assert np.mean(np.abs(calibration.unclipped(theta)) <= 10.0) == pytest.approx(0.9, abs=0.01)
    assert calibration.to_intensity(theta)[-1] == 10.0
    assert calibration.unclipped(theta)[-1] > 10.0


def test_zero_and_unit_move_with_the_judges_scale():
    theta = np.random.default_rng(0).normal(size=200)
    is_neutral = np.arange(200) < 20
    plain, moved = neutral(theta, is_neutral, 0.99), neutral(3.0 * theta + 7.0, is_neutral, 0.99)
    np.testing.assert_allclose(moved.to_intensity(3.0 * theta + 7.0), plain.to_intensity(theta))


@given(CALIBRATIONS, st.lists(NUMBERS, min_size=1, max_size=20))
def test_inversion_returns_the_same_theta(calibration, theta):
    theta = np.array(theta)
    np.testing.assert_allclose(calibration.to_theta(calibration.unclipped(theta)), theta, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(calibration.unclipped(np.array(calibration.theta)), calibration.intensity, rtol=1e-9, atol=1e-9)


@given(CALIBRATIONS, st.lists(NUMBERS, min_size=2, max_size=20))
def test_a_stronger_text_never_has_a_lower_intensity(calibration, theta):
    intensity = calibration.to_intensity(np.sort(theta))
    assert (np.diff(intensity) >= 0).all()
    assert (np.abs(intensity) <= 10).all()


def test_a_calibration_survives_json():
    calibration = isotonic(np.array([0.1, 0.2, 0.7]), np.array([-5.0, 1.0, 8.0]), "rated")
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


def test_ordered_ratings_are_reproduced_exactly():
    theta, rating = np.array([3.0, -1.0, 0.5, 2.0]), np.array([9.0, -8.0, 0.0, 4.0])
    np.testing.assert_allclose(isotonic(theta, rating, "human").unclipped(theta), rating)


def test_ratings_out_of_order_are_pooled():
    """Pool adjacent violators: 1, (3, 2), 6 -> 1, 2.5, 2.5, 6."""
    calibration = isotonic(np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0, 6.0]), "human")
    assert calibration.theta == [0.0, 1.5, 3.0]
    assert calibration.intensity == [1.0, 2.5, 6.0]


@given(st.lists(st.tuples(HUNDREDTHS, HUNDREDTHS), min_size=2, max_size=40, unique_by=lambda pair: pair[0]))
def test_any_ratings_give_a_rising_map_or_an_error(pairs):
    theta, rating = np.array(pairs).T
    try:
        calibration = isotonic(theta, rating, "rated")
    except InputError as error:
        refused = str(error)
    else:
        assert (np.diff(calibration.to_intensity(np.sort(theta))) >= 0).all()
        assert min(rating) <= calibration.intensity[0] <= calibration.intensity[-1] <= max(rating)
        return
    assert "do not increase with theta" in refused


def test_texts_of_equal_theta_are_rated_by_their_mean():
    calibration = isotonic(np.array([0.0, 0.0, 1.0]), np.array([-1.0, 0.0, 5.0]), "human")
    np.testing.assert_allclose(calibration.unclipped(np.array([0.0, 1.0])), [-0.5, 5.0])
    pooled = isotonic(np.array([0.0, 0.0, 1.0, 2.0]), np.array([6.0, 6.0, 3.0, 9.0]), "human")
    assert pooled.intensity == [5.0, 9.0]


def test_a_human_scale_is_recovered_from_noisy_ratings():
    rng = np.random.default_rng(0)
    theta = rng.normal(0, 2, 2000)
    truth = 10 * np.tanh(theta / 3)
    calibration = isotonic(theta, truth + rng.normal(0, 1.4, 2000), "human")
    assert np.abs(calibration.to_intensity(theta) - truth).mean() < 0.3


@pytest.mark.parametrize("rating", [[5.0, 5.0, 5.0], [3.0, 2.0, 1.0]])
def test_ratings_that_do_not_rise_are_refused(rating):
    with pytest.raises(InputError, match=r"calibration mode 'human': the 3 ratings do not increase with theta"):
        isotonic(np.array([0.0, 1.0, 2.0]), np.array(rating), "human")


def test_no_neutral_text_and_no_spread_are_refused():
    with pytest.raises(InputError, match=r"calibration mode 'neutral' needs neutral texts in the pool"):
        neutral(np.array([0.0, 1.0]), np.array([False, False]), 0.99)
    with pytest.raises(InputError, match="all texts have the same theta; the judge did not separate them"):
        neutral(np.zeros(5), np.ones(5, bool), 0.99)


def test_the_setting_to_change_exists():
    with pytest.raises(InputError) as refused:
        neutral(np.array([0.0, 1.0]), np.array([False, False]), 0.99)
    assert set(re.findall(r"candidates\.(\w+)", str(refused.value))) <= set(CandidatesConfig.model_fields)


@pytest.mark.parametrize(
    ("theta", "intensity", "message"),
    [
        ([0, 1], [0, 1, 2], "2 theta knots but 3 intensity knots"),
        ([0, 0], [0, 1], "must increase strictly"),
        ([0, 1], [1, 0], "must increase strictly"),
        ([0, float("nan")], [0, 1], "finite number"),
        ([0], [0], "at least 2 items"),
    ],
)
def test_a_map_that_cannot_be_inverted_is_refused(theta, intensity, message):
    with pytest.raises(ValidationError, match=message):
        Calibration(mode="human", theta=theta, intensity=intensity)


@pytest.mark.parametrize("settings", [{"mode": "human"}, {"mode": "neutral", "ratings": "r.csv"}])
def test_ratings_go_with_the_modes_that_use_them(settings):
    with pytest.raises(ValidationError, match=r"ratings \('.*'\) .* mode is"):
        CalibrateConfig(**settings)
