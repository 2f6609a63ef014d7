"""Differences of units, centred profiles, reliability and the wave over the circle: known answers and simulated units."""

import numpy as np
import pytest

from tests.profiles.worlds import world
from valueflow.numerics.p_values import holm
from valueflow.profiles.centred import centre
from valueflow.profiles.circle import CIRCLE, SECTORS, fit_wave
from valueflow.profiles.divergence import Side, diverge
from valueflow.profiles.reliability import over_units, over_values, spearman_brown
from valueflow.theories import operational

PLACES = np.arange(12)


def wave(peak: float, amplitude: float = 1.0) -> dict:
    return dict(zip(CIRCLE, amplitude * np.cos(np.radians(30 * PLACES - peak)), strict=True))


def test_the_circle_has_the_values_of_the_theory_and_its_sectors_cover_it():
    assert sorted(CIRCLE) == sorted(value for value in operational() if value.theory == "svt")
    assert set().union(*(range(first, last + 1) for first, last in SECTORS.values())) == set(range(12))


@pytest.mark.parametrize("peak", [0.0, 75.0, 213.0, 359.0])
def test_the_wave_of_a_sinusoid_is_found(peak):
    found = fit_wave(wave(peak, 0.7), dict.fromkeys(CIRCLE, 0.1))
    assert (found.peak - peak + 180) % 360 - 180 == pytest.approx(0, abs=1e-6)
    assert found.amplitude == pytest.approx(0.7)
    assert found.r2 == pytest.approx(1.0)
    assert found.nearest == CIRCLE[{0.0: 0, 75.0: 2, 213.0: 7, 359.0: 0}[peak]]


def test_the_wave_of_too_few_values_is_none_and_of_missing_ones_the_same():
    some = wave(80.0)
    assert fit_wave({value: some[value] for value in CIRCLE[:5]}) is None
    assert fit_wave({value: some[value] for value in CIRCLE[::2]}).peak == pytest.approx(80.0)
    assert fit_wave(dict.fromkeys(CIRCLE, 1.0)) is None


def test_the_error_of_the_peak_is_that_of_draws():
    rng, truth = np.random.default_rng(0), wave(100.0)
    peaks = [fit_wave({v: x + rng.normal(0, 0.2) for v, x in truth.items()}).peak for _ in range(400)]
    error = fit_wave(truth, dict.fromkeys(CIRCLE, 0.2)).peak_error
    assert np.std(peaks) == pytest.approx(error, rel=0.15)


def test_a_wave_of_noise_explains_little():
    rng = np.random.default_rng(1)
    r2 = [fit_wave(dict(zip(CIRCLE, rng.normal(size=12), strict=True))).r2 for _ in range(300)]
    assert np.mean(r2) == pytest.approx(2 / 11, abs=0.04)


def test_spearman_brown_by_hand():
    assert spearman_brown(0.5) == pytest.approx(2 / 3)


def test_reliability_needs_units_and_values():
    halves = np.random.default_rng(0).normal(size=(3, 2, 4))
    assert np.isnan(over_units(halves)).all()
    assert np.isnan(over_values(halves, np.ones(2))).all()


def test_reliability_is_one_of_equal_halves_and_about_zero_of_noise():
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.normal(size=(400, 6, 1)), 4, axis=2)
    assert over_units(truth) == pytest.approx(1.0)
    assert over_values(truth, np.ones(6)) == pytest.approx(1.0)
    assert np.abs(over_units(rng.normal(size=(400, 6, 20)))).max() < 0.15


def centred_of(simulated, scale=1.0):
    found = simulated.profiles()
    number = simulated.truth_UV.shape[1]
    return found, centre(
        found.mean_UV, found.shared_error_UV, found.influence_CV, found.unit_C, found.num_clusters_UV,
        np.full(number, scale), ["svt"] * number,
    )  # fmt: skip


def test_centred_values_sum_to_zero_and_mrat_is_the_mean_of_standardized_ones():
    found, relative = centred_of(world(0, 20, 10, 4), 2.0)
    assert relative.centred_UV.sum(1) == pytest.approx(0, abs=1e-12)
    assert relative.mrat_UV[:, 0] == pytest.approx(found.mean_UV.mean(1) / 2)


def test_a_unit_with_few_values_of_a_theory_has_no_mrat():
    simulated = world(0, 3, 10, 4)
    simulated.scores.judge_TV[:10, :3] = np.nan
    _, relative = centred_of(simulated)
    assert np.isnan(relative.centred_UV[0]).all()
    assert np.isfinite(relative.centred_UV[1:]).all()


def test_the_error_of_a_centred_value_knows_that_one_text_is_about_several():
    """A judge that is always too high for a text raises all its values: raw means vary, centred ones do not."""
    simulated = world(0, 50, 12, 4, within=0.5)
    simulated.scores.judge_TV[:] += np.random.default_rng(3).normal(0, 5, (600, 1))
    found, relative = centred_of(simulated)
    assert np.median(relative.standard_error_UV) < 0.3 * np.median(found.standard_error_UV)


@pytest.mark.statistics
@pytest.mark.parametrize("judge_sd", [0.0, 3.0])
def test_coverage_of_centred_values(judge_sd):
    simulated = world(11, 2000, 20, 6, judge_sd=judge_sd)
    _, relative = centred_of(simulated)
    true = simulated.truth_UV - simulated.truth_UV.mean(1, keepdims=True)
    assert 0.93 <= ((relative.low_UV <= true) & (true <= relative.high_UV)).mean() <= 0.97


def sides(simulated) -> tuple[Side, Side]:
    found = simulated.profiles()
    table = (found.mean_UV, found.standard_error_UV, found.num_clusters_UV)
    return Side(*(x[0::2] for x in table)), Side(*(x[1::2] for x in table))


@pytest.mark.statistics
def test_the_most_divergent_values_are_recovered_and_equal_units_are_not_called_different():
    apart, same = world(12, 400, 30, 8, judge_sd=2.0), world(13, 800, 30, 8, between=0.0, judge_sd=2.0)
    found = diverge(*sides(apart), np.full(8, 3.0), np.zeros(8))
    true = apart.truth_UV[0::2] - apart.truth_UV[1::2]
    top = np.abs(found.difference_PV).argmax(1)
    rank = (np.abs(true) > np.abs(true)[np.arange(200), top][:, None]).sum(1)
    assert (rank <= 1).mean() > 0.9
    assert (found.low_PV <= true).mean() > 0.98
    by_pair = [holm(p_V) for p_V in diverge(*sides(same), np.full(8, 3.0), np.zeros(8)).p_PV]
    assert (np.min(by_pair, 1) < 0.05).mean() < 0.08


@pytest.mark.statistics
def test_the_distance_of_equal_units_is_small_and_of_others_their_own():
    equal = diverge(*sides(world(14, 600, 30, 12, between=0.0)), np.full(12, 2.0), np.zeros(12))
    assert np.median(equal.distance_P) < 0.15
    apart = world(15, 600, 30, 12, between=2.0)
    true = np.sqrt((((apart.truth_UV[0::2] - apart.truth_UV[1::2]) / 2) ** 2).mean(1))
    found = diverge(*sides(apart), np.full(12, 2.0), np.zeros(12))
    assert np.mean(found.distance_P - true) == pytest.approx(0, abs=0.03)
    inside = np.abs(found.distance_P - true) < 1.96 * found.distance_error_P
    assert 0.9 < inside.mean() < 0.98


@pytest.mark.statistics
def test_the_peak_of_simulated_units_is_recovered():
    """Texts of units whose values follow a wave; the peak is found within its standard error."""
    rng = np.random.default_rng(4)
    peak_U = rng.uniform(0, 360, 200)
    truth_UV = 3 * np.cos(np.radians(30 * PLACES[None] - peak_U[:, None]))
    simulated = world(5, 200, 30, 12, between=0.0, within=3.0)
    simulated.scores.judge_TV[:] += np.repeat(truth_UV, 30, axis=0)
    _, relative = centred_of(simulated, 3.0)
    inside, size = [], []
    for u, peak in enumerate(peak_U):
        found = fit_wave(*(dict(zip(CIRCLE, x[u], strict=True)) for x in (relative.centred_UV, relative.standard_error_UV)))
        off = (found.peak - peak + 180) % 360 - 180
        inside.append(abs(off) < 1.96 * found.peak_error)
        size.append(abs(off))
    assert np.median(size) < 10
    assert 0.9 < np.mean(inside) < 0.99
