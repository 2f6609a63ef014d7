"""People's intensity of texts of which half do not concern the value: coverage, means; without relevance nothing changes."""

import numpy as np
import pytest

from valueflow.numerics.intervals import Z95
from valueflow.ranking.content_error import ContentError
from valueflow.ranking.relevance import DOUBT, bounded, concern, interval

ERROR = ContentError(slope=0.8, sd=2.0, spread=5.0, shared_sd=0.3)
SAMPLING = 0.5
NUM = 20_000


def texts(accuracy: float, off_topic: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """People's intensity of texts, the judge's, and the relevance that it says: the probability that a text concerns the value.

    The judge puts texts that do not concern the value at random places of spread `off_topic`: right and wrong of other kinds.
    """
    rng = np.random.default_rng(seed)
    concerns = rng.random(NUM) < 0.5
    judge_T = np.where(concerns, rng.normal(0, 5, NUM), rng.normal(0, off_topic, NUM))
    people_T = np.where(concerns, ERROR.slope * judge_T + np.hypot(ERROR.sd, ERROR.shared_sd) * rng.normal(size=NUM), 0.0)
    believes = concerns == (rng.random(NUM) < accuracy)
    return people_T, judge_T + SAMPLING * rng.normal(size=NUM), np.where(believes, accuracy, 1 - accuracy)


def totals(judge_T: np.ndarray, relevance_T: np.ndarray | None = None, error: ContentError = ERROR) -> tuple[np.ndarray, ...]:
    return error.total(judge_T, judge_T - Z95 * SAMPLING, judge_T + Z95 * SAMPLING, relevance_T=relevance_T)


def coverage(people_T: np.ndarray, total: tuple[np.ndarray, ...]) -> float:
    return float(((total[1] <= people_T) & (people_T <= total[2])).mean())


@pytest.mark.parametrize("accuracy", [0.7, 0.9, 1.0])
@pytest.mark.parametrize("off_topic", [2.0, 5.0])
def test_intervals_cover_people_where_half_of_the_texts_do_not_concern_the_value(accuracy, off_topic):
    people_T, judge_T, relevance_T = texts(accuracy, off_topic)
    without, total = totals(judge_T), totals(judge_T, relevance_T)
    assert coverage(people_T, total) >= 0.95

    def error(intensity_T: np.ndarray) -> float:
        return float(np.sqrt(((intensity_T - people_T) ** 2).mean()))

    if off_topic == 5.0:  # the judge takes what is good or bad for other reasons to be about the value
        assert coverage(people_T, without) < 0.9
        assert error(total[0]) < error(without[0])
    off_T = people_T == 0
    assert ((total[1][off_T] <= 0) & (total[2][off_T] >= 0)).mean() >= 0.95


def test_without_relevance_nothing_is_widened_or_shrunk():
    _, judge_T, relevance_T = texts(0.9, 5.0)
    known_T = np.arange(NUM) % 2 == 0
    total, without = totals(judge_T, np.where(known_T, relevance_T, np.nan)), totals(judge_T)
    for column, plain in zip(total, without, strict=True):
        assert np.array_equal(column[~known_T], plain[~known_T])
        assert not np.array_equal(column[known_T], plain[known_T])
    for column, plain in zip(totals(judge_T, np.ones(NUM)), without, strict=True):
        np.testing.assert_array_equal(column, plain)


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
    mean_T, low_T, high_T = totals(np.full(11, 7.0), relevance_T)
    assert (np.diff(mean_T) < 0).all()
    np.testing.assert_allclose(mean_T, ERROR.slope * 7.0 * concern(relevance_T))
    assert mean_T[-1] == pytest.approx(ERROR.slope * 7.0 * DOUBT)
    assert low_T[-1] <= 0 <= mean_T[-1] <= high_T[-1]


def test_a_judge_whose_orders_contain_relevance_is_bounded_and_not_shrunk():
    intensity_T, low_T, high_T = (
        np.array([2.0, 6.0, -6.0, 6.0]),
        np.array([1.0, 4.0, -9.0, 4.0]),
        np.array([3.0, 9.0, -4.0, 9.0]),
    )
    result = bounded(intensity_T, low_T, high_T, np.array([0.5, 0.0, 0.0, np.nan]))
    np.testing.assert_allclose(result, [[2.0, 1.0, -1.0, 6.0], [1.0, 0.0, -9.0, 4.0], [3.0, 9.0, 0.0, 9.0]])
