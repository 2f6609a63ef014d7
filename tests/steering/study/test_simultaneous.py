"""Simultaneous intervals and corrections against closed forms."""

import numpy as np
import pytest
from scipy.stats import norm

from valueflow.steering.study.effects import stratified
from valueflow.steering.study.simultaneous import (
    critical_value,
    deviations,
    draw_queries,
    redrawn_means,
)


def test_a_draw_keeps_the_size_of_every_stratum():
    stratum_Q = np.repeat([0, 1, 2], [5, 10, 3])
    count_BQ = draw_queries(stratum_Q, 7, np.random.default_rng(0))
    assert [count_BQ[:, stratum_Q == s].sum(1).tolist() for s in range(3)] == [[5] * 7, [10] * 7, [3] * 7]


def test_means_of_a_draw_are_those_of_the_repeated_queries():
    rng = np.random.default_rng(1)
    d_QJ, stratum_Q = rng.normal(3, 1, (12, 3)), np.repeat([0, 1], 6)
    d_QJ[2, 1] = np.nan
    count_BQ = draw_queries(stratum_Q, 4, rng)
    mean_BJ, error_BJ = redrawn_means(d_QJ, stratum_Q, count_BQ)
    for draw, count_Q in enumerate(count_BQ.astype(int)):
        repeated = np.repeat(np.arange(12), count_Q)
        expected = stratified(d_QJ[repeated], stratum_Q[repeated])
        assert mean_BJ[draw] == pytest.approx(expected.estimate_J)
        assert error_BJ[draw] == pytest.approx(expected.error_J)


@pytest.mark.parametrize(("copies", "independent"), [(20, 1), (1, 20)])
def test_the_critical_value_counts_independent_contrasts(copies, independent):
    rng = np.random.default_rng(2)
    d_QJ = np.repeat(rng.normal(size=(300, independent)), copies, axis=1)
    stratum_Q = np.repeat(np.arange(3), 100)
    t_BJ = deviations(d_QJ, stratum_Q, draw_queries(stratum_Q, 2000, rng), stratified(d_QJ, stratum_Q))
    sidak = norm.isf((1 - 0.95 ** (1 / independent)) / 2)
    assert critical_value(t_BJ, 0.95) == pytest.approx(sidak, abs=0.12)


def test_differences_that_are_all_equal_do_not_deviate():
    stratum_Q = np.zeros(6, int)
    d_QJ = np.full((6, 1), 2.0)
    t_BJ = deviations(d_QJ, stratum_Q, draw_queries(stratum_Q, 50, np.random.default_rng(3)), stratified(d_QJ, stratum_Q))
    assert critical_value(t_BJ, 0.95) == 0
