"""People's intensity of texts of which half do not concern the value: coverage, means; without relevance nothing changes."""

import numpy as np
import pytest

from benchmarks.validity import TOPIC_ERROR, texts_of_any_topic
from valueflow.ranking.content_error import ContentError
from valueflow.ranking.relevance import DOUBT, bounded, concern, interval

ACCURACIES, OFF_TOPIC = [0.7, 0.9, 1.0], [2.0, 5.0]


@pytest.mark.parametrize("accuracy", ACCURACIES)
@pytest.mark.parametrize("off_topic", OFF_TOPIC)
def test_intervals_cover_people_where_half_of_the_texts_do_not_concern_the_value(accuracy, off_topic):
    texts = texts_of_any_topic(accuracy, off_topic)
    (coverage, _, error), (plain_coverage, _, plain_error) = texts.quality(True), texts.quality(False)
    assert 0.95 <= coverage <= 0.97
    if off_topic == 5.0:  # the judge takes what is good or bad for other reasons to be about the value
        assert plain_coverage < 0.9
        assert error < plain_error
    _, low_T, high_T = texts.total()[:, texts.scores.truth_T == 0]
    assert ((low_T <= 0) & (high_T >= 0)).mean() >= 0.95


def test_without_relevance_nothing_is_widened_or_shrunk():
    texts = texts_of_any_topic(0.9, 5.0)
    plain_3T, known_T = texts.total(knows_relevance=False), np.arange(len(texts.relevance_T)) % 2 == 0
    mixed_3T = texts._replace(relevance_T=np.where(known_T, texts.relevance_T, np.nan)).total()
    np.testing.assert_array_equal(mixed_3T[:, ~known_T], plain_3T[:, ~known_T])
    assert (mixed_3T[0] != plain_3T[0])[known_T].all()
    np.testing.assert_array_equal(texts._replace(relevance_T=np.ones(len(known_T))).total(), plain_3T)


@pytest.mark.parametrize("mean", [-6.0, 0.0, 0.5, 8.0])
@pytest.mark.parametrize("c", [0.1, 0.5, 0.97, 0.99])
def test_the_ends_are_the_quantiles_of_the_mixture(mean, c):
    rng = np.random.default_rng(0)
    z_T = rng.normal(size=400_000)
    draws_T = np.where(rng.random(400_000) < c, mean + z_T * np.where(z_T < 0, 1.0, 3.0), 0.0)
    low, high = interval(np.array([mean]), np.array([1.0]), np.array([3.0]), np.array([c]))
    np.testing.assert_allclose([low[0], high[0]], np.quantile(draws_T, [0.025, 0.975]), atol=0.06)


def test_less_relevance_moves_the_mean_to_zero_and_never_beyond():
    relevance_T = np.linspace(1, 0, 11)
    own_T = np.full(11, 7.0)
    mean_T, low_T, high_T = TOPIC_ERROR.total(own_T, own_T - 1, own_T + 1, relevance_T=relevance_T)
    assert (np.diff(mean_T) < 0).all()
    np.testing.assert_allclose(mean_T, TOPIC_ERROR.slope * 7.0 * concern(relevance_T))
    assert mean_T[-1] == pytest.approx(TOPIC_ERROR.slope * 7.0 * DOUBT)
    assert low_T[-1] <= 0 <= mean_T[-1] <= high_T[-1]


def test_a_judge_whose_orders_contain_relevance_is_bounded_and_not_shrunk():
    intensity_T, low_T, high_T = (
        np.array([2.0, 6.0, -6.0, 6.0]),
        np.array([1.0, 4.0, -9.0, 4.0]),
        np.array([3.0, 9.0, -4.0, 9.0]),
    )
    result = bounded(intensity_T, low_T, high_T, np.array([0.5, 0.0, 0.0, np.nan]))
    np.testing.assert_allclose(result, [[2.0, 1.0, -1.0, 6.0], [1.0, 0.0, -9.0, 4.0], [3.0, 9.0, 0.0, 9.0]])


def test_a_judge_that_has_nothing_in_common_with_people_is_not_believed_about_relevance_either():
    """Else one that finds no text relevant has narrow intervals around zero, whatever people say."""
    own_T, relevance_T = np.full(3, 2.0), np.array([0.0, 0.5, 1.0])
    widths = []
    for agreement in (0.0, 0.1, 0.25, 0.8):
        error = ContentError(slope=agreement, sd=4.5 * (1 - agreement) ** 0.5, spread=4.5)
        assert error.agreement == pytest.approx(agreement)
        plain, mixed = (
            error.total(own_T, own_T - 1, own_T + 1),
            error.total(own_T, own_T - 1, own_T + 1, relevance_T=relevance_T),
        )
        if not agreement:
            np.testing.assert_allclose(mixed, plain)
        np.testing.assert_allclose(mixed.intensity_T, plain.intensity_T * concern(relevance_T, agreement))
        widths.append((mixed.high_T - mixed.low_T)[0])
    assert widths[0] > 17
    assert (np.diff(widths) < 0).all()
    assert (concern(relevance_T, 0.25) == concern(relevance_T)).all()
