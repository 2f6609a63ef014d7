"""Five readings of non-answers: bounds by hand, by simulation, and a detector that errs."""

import numpy as np
import pytest

from benchmarks.steering_worlds import refuse
from valueflow.steering.study.refusals import DEPENDS, Responses, Rule, refusal_study, rogan_gladen
from valueflow.steering.study.simultaneous import draw_queries

RULE = Rule(1.0, -1, 1.96, 1.645, (-10.0, 10.0))


def study_of(level, answered, default, rule=RULE):
    level, answered, default = (np.asarray(x)[:, None] for x in (level, answered, default))
    stratum_Q = np.zeros(len(level), int)
    count_BQ = draw_queries(stratum_Q, 100, np.random.default_rng(0))
    full = np.ones_like(default, bool)
    return refusal_study(Responses(level, answered), Responses(default, full), stratum_Q, count_BQ, rule)


def test_readings_by_hand():
    level, default = np.array([-4.0, -4.0, 3.0, 3.0]), np.array([0.0, 1.0, 2.0, 3.0])
    scored, answered, manski, lee = study_of(level, [True, True, False, False], default).readings
    assert scored.low == scored.high == np.mean(level - default)
    assert answered.low == -4.5
    assert (manski.low, manski.high) == ((-8 - 20 - 6) / 4, (-8 + 20 - 6) / 4)
    # Half of the level answers, so that half of the default's answers are kept: the highest or the lowest.
    assert (lee.low, lee.high) == (-4 - 2.5, -4 - 0.5)


def test_without_non_answers_all_readings_agree():
    rng = np.random.default_rng(1)
    default = rng.normal(size=40)
    result = study_of(default - 4 + rng.normal(size=40), np.ones(40, bool), default)
    assert {round(reading.low, 9) for reading in result.readings} == {round(result.readings[0].high, 9)}
    assert result.verdict == "moved"
    assert (result.tipping, result.share, result.mcnemar_p) == (None, 0, 1)


def test_lee_trims_the_level_where_the_default_has_fewer_answers():
    level, default = np.arange(8.0)[:, None], np.zeros((8, 1))
    answered = np.arange(8)[:, None] < 6
    stratum_Q = np.zeros(8, int)
    rule = RULE._replace(direction=1)
    result = refusal_study(
        Responses(level, np.ones((8, 1), bool)), Responses(default, answered), stratum_Q,
        draw_queries(stratum_Q, 50, np.random.default_rng(0)), rule,
    )  # fmt: skip
    assert (result.readings[3].low, result.readings[3].high) == (2.5, 4.5)  # mean of the lowest and the highest 6 of 0 to 7


def test_a_verdict_that_rests_on_refusals_says_so_and_where_it_tips():
    world = refuse(400, -4.0, 1.0, np.random.default_rng(2))
    result = study_of(world.level_QR[:, 0], world.level_answered_QR[:, 0], world.default_QR[:, 0])
    assert result.verdict == DEPENDS
    assert result.readings[1].side == "moved"
    assert result.tipping is not None
    # Filled with this mean, the effect would touch the margin, give or take its interval.
    share, answers = result.share, world.level_QR[world.level_answered_QR].mean()
    filled = share * result.tipping + (1 - share) * answers - world.default_QR.mean()
    assert filled == pytest.approx(-1.0, abs=0.6)
    assert result.mcnemar_p < 1e-6


def test_answers_without_a_score_are_no_refusals():
    level = np.array([-4.0, np.nan, -4.0, -4.0])
    result = study_of(level, np.ones(4, bool), np.zeros(4))
    assert result.share == 0
    assert result.readings[2].low == result.readings[2].high == -4


def test_a_detector_that_errs_is_corrected_and_a_useless_one_refused():
    rate = rogan_gladen(260, 1000, (80, 100), (90, 100))
    assert rate.estimate == pytest.approx((0.26 + 0.9 - 1) / 0.7)
    assert rate.low < rate.estimate < rate.high
    assert np.isnan(rogan_gladen(500, 1000, (40, 100), (60, 100)).estimate)


@pytest.mark.statistics
def test_intervals_of_the_corrected_share_cover_it():
    rng = np.random.default_rng(3)
    truth, hits = 0.2, 0
    for _ in range(1000):
        positive = rng.binomial(500, truth * 0.85 + (1 - truth) * 0.1)
        rate = rogan_gladen(positive, 500, (rng.binomial(120, 0.85), 120), (rng.binomial(200, 0.9), 200))
        hits += rate.low <= truth <= rate.high
    assert 930 <= hits <= 970
