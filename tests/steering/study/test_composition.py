"""How two values compose, on planted kinds, and what a design of one order would claim."""

import numpy as np
import pytest

from benchmarks.steering_worlds import COMPOSITIONS, SHIFTS, compose_world, stratum_of
from valueflow.steering.study.composition import compose
from valueflow.steering.study.simultaneous import draw_queries

REACH_X2 = np.array([[-6.0, 6.0], [-6.0, 6.0]])


def composed(y_QCX, margin=0.5, seed=0):
    stratum_Q = stratum_of(len(y_QCX))
    return compose(y_QCX, stratum_Q, draw_queries(stratum_Q, 300, np.random.default_rng(seed)), margin, REACH_X2)


@pytest.mark.parametrize("kind", COMPOSITIONS)
def test_each_planted_kind_is_named(kind):
    result = composed(compose_world(kind, 600, np.random.default_rng(1)))
    assert result.name == kind
    first, second = COMPOSITIONS[kind]
    assert result.weights == pytest.approx((np.array(first) + np.array(second)) / 2, abs=0.15)
    shifts = (result.weights @ SHIFTS) - SHIFTS.sum(0)
    assert [interval.estimate for interval in result.interaction] == pytest.approx(shifts, abs=0.25)


def test_one_order_mistakes_the_last_value_for_the_dominant_one():
    y_QCX = compose_world("order effect", 600, np.random.default_rng(2))
    both = composed(y_QCX)
    assert (both.name, both.dominant) == ("order effect", "none")
    y_QCX[:, 4] = y_QCX[:, 3]
    fixed = composed(y_QCX)
    assert (fixed.name, fixed.dominant) == ("dominance", "b")
    assert fixed.order.estimate == 0


def test_a_ceiling_is_not_called_sub_additive():
    y_QCX = np.minimum(compose_world("additive", 600, np.random.default_rng(3)) + 4.0, 6.0)
    result = composed(y_QCX)
    assert result.interaction[0].high < 0  # the scores are sub-additive, the ceiling makes them so
    assert result.name == "no room"
    assert result.excluded == ("a", "b")


def test_the_sum_predicts_additive_pairs_and_the_strongest_dominated_ones():
    additive = composed(compose_world("additive", 300, np.random.default_rng(4))).strongest_over_sum
    dominated = composed(compose_world("dominance", 300, np.random.default_rng(4))).strongest_over_sum
    assert additive[1] > 0 > dominated[2]


def test_queries_with_a_missing_cell_are_left_out():
    y_QCX = compose_world("additive", 200, np.random.default_rng(5))
    complete = y_QCX.copy()
    y_QCX[:20, 2, 1] = np.nan
    stratum_Q = stratum_of(200)
    count_BQ = draw_queries(stratum_Q, 100, np.random.default_rng(6))
    result = compose(y_QCX, stratum_Q, count_BQ, 0.5, REACH_X2)
    expected = compose(complete[20:], stratum_Q[20:], count_BQ[:, 20:], 0.5, REACH_X2)
    assert result == expected


def test_hotelling_is_uniform_without_an_interaction():
    p = [composed(compose_world("additive", 60, np.random.default_rng([7, s])), seed=s).hotelling_p for s in range(60)]
    assert 0.3 < np.mean(p) < 0.7
    assert composed(compose_world("sub-additive", 200, np.random.default_rng(8))).hotelling_p < 1e-6
