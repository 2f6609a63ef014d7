"""Anchors redrawn over saved rankings: no calls, exact where anchors are exact; Rubin's rule by hand."""

import numpy as np
import pytest

from benchmarks.steering_worlds import CountingJudge, rank_all, ranked_world
from valueflow.evaluation.scoring import EvaluatorConfig, Scoring
from valueflow.ranking.calibration import Calibration
from valueflow.steering.study.judge_error import SavedAnswers, redrawn_scores, rubin

CONFIG = EvaluatorConfig(k=4, m=2, seed=0)
IDS = [f"response {i}" for i in range(6)]


@pytest.fixture(scope="module")
def ranked():
    rng = np.random.default_rng(0)
    world = ranked_world(30, 0.5, rng)
    judge = CountingJudge(world, dict(zip(IDS, np.linspace(-3, 3, 6).tolist(), strict=True)), rng)
    return judge, SavedAnswers(world.published, world.error_A, IDS, rank_all(world, judge, IDS, CONFIG), 1.0, CONFIG)


def test_exact_anchors_give_the_scores_of_the_evaluation_without_a_call(ranked):
    judge, saved = ranked
    calls = judge.calls
    drawn_BU = redrawn_scores(saved._replace(error_A=np.zeros(30)), 2, np.random.default_rng(1))
    scoring = Scoring(saved.anchors, IDS, 1.0, CONFIG)
    scoring.take(saved.answers)
    expected = [total.intensity for total in scoring.scores()]
    assert drawn_BU.tolist() == [expected, expected]
    assert judge.calls == calls == len(IDS) * CONFIG.m


def test_errors_of_anchors_move_scores_together():
    rng = np.random.default_rng(2)
    world = ranked_world(12, 0.5, rng)
    judge = CountingJudge(world, dict.fromkeys(IDS, 0.0), rng)
    saved = SavedAnswers(world.published, world.error_A, IDS, rank_all(world, judge, IDS, CONFIG), 1.0, CONFIG)
    drawn_BU = redrawn_scores(saved, 300, rng)
    independent = drawn_BU.var(0).mean() / len(IDS)
    assert drawn_BU.mean(1).var() > 2 * independent  # of the mean over texts that share most of 12 anchors


def test_a_text_without_a_valid_answer_has_no_score(ranked):
    _, saved = ranked
    answers = [(unit, row | ({"order": None} if unit == 0 else {})) for unit, row in saved.answers]
    drawn_BU = redrawn_scores(saved._replace(answers=answers), 2, np.random.default_rng(3))
    assert np.isnan(drawn_BU).any(0).tolist() == [True, *[False] * 5]


def test_the_map_to_intensity_is_drawn_with_the_anchors(ranked):
    _, saved = ranked
    steep = Calibration(mode="neutral", theta=[-3.0, 3.0], intensity=[-10.0, 10.0])
    exact = saved._replace(error_A=np.zeros(30))
    wide = redrawn_scores(exact, 1, np.random.default_rng(4))
    narrow = redrawn_scores(exact._replace(recalibrate=lambda theta_A: steep), 1, np.random.default_rng(4))
    assert np.abs(narrow).mean() > 1.3 * np.abs(wide).mean()


def test_rubins_rule_by_hand():
    estimate_BJ, error_BJ = np.array([[1.0, 2.0], [3.0, 2.0]]), np.array([[1.0, 0.5], [1.0, 0.5]])
    combined = rubin(estimate_BJ, error_BJ, np.array([100.0, 100.0]))
    assert combined.error_J == pytest.approx([np.sqrt(1 + 1.5 * 2), 0.5])
    assert combined.missing_J[1] == 0
    share = 3 / 4
    of_draws, of_data = 1 / share**2, 101 / 103 * 100 * (1 - share)
    assert combined.freedom_J[0] == pytest.approx(1 / (1 / of_draws + 1 / of_data))
    assert combined.missing_J[0] == pytest.approx((3 + 2 / (combined.freedom_J[0] + 3)) / 4)
