"""Probability of superiority against the definition."""

import numpy as np
import pytest

from valueflow.steering.study.superiority import cliff, superiority


def test_exact_scores_count_wins_and_half_ties():
    p_Q = superiority(np.array([1.0, 2.0, 0.0, np.nan]), np.array([0.0, 2.0, 5.0, 0.0]))
    assert p_Q[:3].tolist() == [1.0, 0.5, 0.0]
    assert np.isnan(p_Q[3])
    assert cliff(p_Q[:3]).tolist() == [1.0, 0.0, -1.0]


def test_uncertain_scores_win_with_the_share_of_their_draws():
    rng = np.random.default_rng(0)
    p_Q = superiority(np.array([1.0]), np.array([0.0]), np.array([1.0]), np.array([2.0]))
    draws = (rng.normal(1, 1, 200_000) > rng.normal(0, 2, 200_000)).mean()
    assert p_Q[0] == pytest.approx(draws, abs=0.005)
    assert superiority(np.array([1.0]), np.array([0.0]), np.zeros(1), np.zeros(1)).tolist() == [1.0]
