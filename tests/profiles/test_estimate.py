"""Means of units and their intervals: known answers by hand, and the truth of simulated units."""

import numpy as np
import pytest
from scipy.stats import t

from tests.profiles.worlds import coverage, world
from valueflow.numerics.intervals import Z95
from valueflow.profiles.bands import band
from valueflow.profiles.estimate import EstimateConfig, TextScores, UnitTexts, estimate
from valueflow.profiles.reliability import over_units
from valueflow.ranking.content_error import ContentError

NAN = np.nan


def one_unit(judge_T, relevance_T=None, cluster_T=None, weight_T=None, error=None, **settings):
    """The profile of one unit and value."""
    judge_T = np.array(judge_T, float)
    number = len(judge_T)
    texts = UnitTexts(
        np.zeros(number, int), np.arange(number) if cluster_T is None else np.array(cluster_T),
        np.ones(number) if weight_T is None else np.array(weight_T, float),
    )  # fmt: skip
    relevance_T = np.full(number, NAN) if relevance_T is None else np.array(relevance_T, float)
    scores = TextScores(judge_T[:, None], relevance_T[:, None])
    return estimate(texts, scores, [error or ContentError()], EstimateConfig(**settings))


def test_few_texts_get_the_t_interval_of_their_mean_without_the_error_of_the_judge_a_second_time():
    found = one_unit([1.0, 3.0, 2.0, 4.0, 5.0])
    standard_error = np.std([1, 3, 2, 4, 5], ddof=1) / np.sqrt(5)
    assert found.mean_UV[0, 0] == pytest.approx(3.0)
    assert found.standard_error_UV[0, 0] == pytest.approx(standard_error)
    assert found.high_UV[0, 0] - 3.0 == pytest.approx(t.ppf(0.975, 4) * standard_error)


def test_the_bootstrap_interval_of_normal_texts_is_the_t_interval():
    x = np.random.default_rng(1).normal(1.0, 2.0, 60)
    found, half = one_unit(x), t.ppf(0.975, 59) * x.std(ddof=1) / np.sqrt(60)
    assert found.high_UV[0, 0] - found.low_UV[0, 0] == pytest.approx(2 * half, rel=0.06)


def test_the_bootstrap_interval_follows_the_skewness_of_the_texts():
    x = np.random.default_rng(2).exponential(2.0, 40) - 4
    found = one_unit(x)
    assert found.high_UV[0, 0] - found.mean_UV[0, 0] > 1.1 * (found.mean_UV[0, 0] - found.low_UV[0, 0])


def test_texts_of_little_relevance_do_not_count_and_those_of_unknown_relevance_do():
    found = one_unit([1, 1, 1, 1, 1, 9, 2], [0.5, 0.5, 0.5, 0.5, NAN, 0.01, 0.1], min_relevance=0.1)
    assert (found.num_texts_UV[0, 0], found.num_left_out_UV[0, 0]) == (6, 1)
    assert found.mean_UV[0, 0] == pytest.approx(7 / 6)


def test_a_text_without_a_score_is_neither_counted_nor_left_out():
    found = one_unit([1, 2, 3, 4, 5, NAN])
    assert (found.num_texts_UV[0, 0], found.num_left_out_UV[0, 0]) == (5, 0)


def test_a_value_with_too_few_texts_is_missing_and_not_zero():
    found = one_unit([5, 5, 5, 4])
    assert np.isnan(found.mean_UV[0, 0])
    assert np.isnan(found.low_UV[0, 0])
    assert found.num_texts_UV[0, 0] == 4
    assert one_unit([5, 5, 5, 4], min_texts=4).mean_UV[0, 0] == pytest.approx(4.75)


def test_texts_of_one_thread_alone_say_nothing_about_others():
    assert np.isnan(one_unit([1, 2, 3, 4, 5, 6], cluster_T=[0] * 6).mean_UV[0, 0])


def test_copies_of_a_text_in_one_thread_do_not_make_it_more_certain():
    x = [1.0, 3.0, 2.0, 4.0, 5.0, 0.0, 2.5, 1.5, 3.5]
    once = one_unit(x)
    thrice = one_unit(np.repeat(x, 3), cluster_T=np.repeat(np.arange(9), 3))
    assert thrice.low_UV == pytest.approx(once.low_UV)
    assert thrice.standard_error_UV == pytest.approx(once.standard_error_UV)


def test_a_weight_of_two_is_a_text_that_counts_twice():
    weighted = one_unit([1, 2, 3, 4, 9], weight_T=[1, 1, 1, 1, 4])
    assert weighted.mean_UV[0, 0] == pytest.approx(46 / 8)


def test_the_error_that_texts_share_does_not_average_out():
    found = one_unit(np.tile([-1.0, 1.0], 200), error=ContentError(shared_sd=2.0))
    assert found.high_UV[0, 0] - found.low_UV[0, 0] == pytest.approx(2 * Z95 * 2.0, rel=0.02)


def test_units_do_not_depend_on_each_other():
    simulated = world(3, 4, 12)
    together = simulated.profiles()
    first = simulated.texts.unit_T == 2
    texts = UnitTexts(np.zeros(12, int), np.arange(12), np.ones(12))
    alone = estimate(texts, TextScores(*(x[first] for x in simulated.scores)), simulated.errors, EstimateConfig())
    for name in ("mean_UV", "low_UV", "high_UV", "halves_UV2S"):
        assert getattr(alone, name)[0] == pytest.approx(getattr(together, name)[2], abs=1e-6)


def test_influences_of_clusters_give_the_standard_error():
    simulated = world(4, 3, 10, judge_sd=2.0)
    found = simulated.profiles()
    for u in range(3):
        square_V = (found.influence_CV[found.unit_C == u] ** 2).sum(0)
        assert np.sqrt(square_V) == pytest.approx(found.standard_error_UV[u])


@pytest.mark.parametrize("judge_sd", [0.0, 3.0])
def test_intervals_cover_and_bands_are_recovered(judge_sd):
    simulated = world(5, 300, 20, judge_sd=judge_sd)
    found = simulated.profiles()
    assert 0.93 <= coverage(simulated, found) <= 0.97
    true = [band(x) for x in simulated.truth_UV.ravel()]
    same = np.mean([a == band(b) for a, b in zip(true, found.mean_UV.ravel(), strict=True)])
    assert same > 0.7


@pytest.mark.statistics
@pytest.mark.parametrize("judge_sd", [0.0, 2.0, 3.0])
@pytest.mark.parametrize("size", [5, 8, 10, 20, 30])
def test_coverage_of_simulated_units(size, judge_sd):
    """The judge's error as large as the spread of people's texts; the sum of errors twice covered 98.5 to 99.7 %."""
    simulated = world(size, 2000, size, judge_sd=judge_sd)
    assert 0.93 <= coverage(simulated, simulated.profiles()) <= 0.97


@pytest.mark.statistics
def test_coverage_with_threads_and_what_ignoring_them_costs():
    simulated = world(7, 1500, 40, thread_sd=2.0, thread_size=4)
    assert 0.93 <= coverage(simulated, simulated.profiles()) <= 0.97
    apart = simulated._replace(texts=simulated.texts._replace(cluster_T=np.arange(len(simulated.texts.unit_T))))
    assert coverage(simulated, apart.profiles()) < 0.85


@pytest.mark.statistics
@pytest.mark.parametrize("size", [10, 30])
def test_reliability_over_units_is_the_predicted_one(size):
    """Of a mean of n texts: between² / (between² + (within² + judge²) / n)."""
    simulated = world(8, 3000, size, between=1.5, within=2.0, judge_sd=2.0)
    predicted = 1.5**2 / (1.5**2 + 8.0 / size)
    assert over_units(simulated.profiles().halves_UV2S) == pytest.approx(predicted, abs=0.03)
