"""Side effects with a cheap judge, distances from a target, dose curves."""

import numpy as np
import pytest

from benchmarks.steering_worlds import side_effect_world, stratum_of
from valueflow.steering.study.side_effects import dose_curve, goal, side_effects
from valueflow.steering.study.simultaneous import draw_queries


def test_a_biased_cheap_judge_does_not_bias_the_matrix_and_narrows_it():
    world = side_effect_world(4, 400, 0.25, np.random.default_rng(0))
    corrected = side_effects(world.trusted_VWQ, world.cheap_VWQ, world.stratum_Q)
    alone = side_effects(world.trusted_VWQ, None, world.stratum_Q)
    assert np.abs(corrected.estimate_VW - world.effect_VW).max() < 0.7
    assert np.abs(np.nanmean(world.cheap_VWQ, 2) - world.effect_VW).max() > 1.5  # the control: the cheap judge as it is
    assert (corrected.high_VW - corrected.low_VW).mean() < (alone.high_VW - alone.low_VW).mean()
    assert corrected.trusted_VW.tolist() == [[100] * 4] * 4
    assert (corrected.adjusted_VW[np.abs(world.effect_VW) > 2] < 0.05).all()


def test_a_cell_without_trusted_scores_is_missing():
    world = side_effect_world(2, 40, 0.5, np.random.default_rng(1))
    world.trusted_VWQ[0, 1] = np.nan
    matrix = side_effects(world.trusted_VWQ, world.cheap_VWQ, world.stratum_Q)
    assert np.isnan(matrix.estimate_VW).tolist() == [[False, True], [False, False]]


def test_goal_distances_of_a_known_shift():
    stratum_Q = stratum_of(2000)
    rng = np.random.default_rng(2)
    shift_QW = np.array([1.5, 2.0, 0.0]) + rng.normal(size=(2000, 3))
    result = goal(shift_QW, np.array([3.0, 0.0, 0.0]), stratum_Q, draw_queries(stratum_Q, 200, rng), True)
    assert result.error[0] == pytest.approx(2.5, abs=0.1)
    assert result.miscalibration[0] == pytest.approx(0.5, abs=0.05)
    assert result.orthogonality[0] == pytest.approx(0.8, abs=0.03)
    for point, low, high in result:
        assert low <= point <= high
    aimless = goal(shift_QW, np.array([1.0, 0.0, 0.0]), stratum_Q, draw_queries(stratum_Q, 50, rng), False)
    assert np.isnan([aimless.error[0], aimless.miscalibration[0]]).all()
    assert aimless.orthogonality[0] == pytest.approx(0.8, abs=0.03)


def test_noise_alone_is_no_side_effect():
    stratum_Q = stratum_of(100)
    shares = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shift_QW = np.array([2.0, *[0.0] * 19]) + rng.normal(0, 2, (100, 20))
        shares.append(goal(shift_QW, np.eye(20)[0], stratum_Q, draw_queries(stratum_Q, 50, rng), False).orthogonality[0])
    assert np.mean(np.square(shares)) < 0.03  # without the correction 20 * 0.04 / 4.8 = 0.17


def test_the_dose_curve_has_the_slope_of_the_responses():
    requested_L = np.array([-8.0, -4.0, 4.0, 8.0])
    rng = np.random.default_rng(3)
    y_QL = 1.0 + 0.4 * requested_L + rng.normal(0, 1, (200, 4)) + rng.normal(0, 2, (200, 1))
    curve = dose_curve(requested_L, y_QL, stratum_of(200))
    slope, low, high = curve.slope
    assert low < 0.4 < high
    assert high - low < 0.1
    assert [row[0] for row in curve.rows] == requested_L.tolist()
    assert slope == pytest.approx(np.polyfit(requested_L, y_QL.mean(0), 1)[0])
