"""Adaptive windows: expected gain, balance, determinism, and fewer questions for the same order."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from valueflow.ranking.adaptive import gains, next_windows, swiss_windows
from valueflow.ranking.likelihood import LikelihoodShard
from valueflow.ranking.orders import Orders
from valueflow.ranking.plackett_luce import fit
from valueflow.ranking.windows import WindowsConfig, plan


def test_the_gain_of_a_pair_is_its_variance_times_the_information_of_its_answer():
    theta, root = np.array([0.0, 0.0, 3.0, 0.0]), np.diag([1.0, 1.0, 1.0, 0.1])
    near, far, certain = gains(theta, root, np.array([0, 0, 0]), np.array([1, 2, 3]))
    assert near == pytest.approx(0.25 * 2)
    assert near > far
    assert near > certain
    # Against a Monte Carlo estimate of the expectation.
    d = 3.0 + np.sqrt(2.0) * np.random.default_rng(0).normal(size=200_000)
    p = 1 / (1 + np.exp(-d))
    assert far / 2 == pytest.approx(p.mean() * (1 - p.mean()), rel=0.1)


@pytest.mark.parametrize(("k", "per_text"), [(2, 1), (2, 3), (3, 2), (5, 2)])
def test_a_round_has_the_configured_windows_per_text_and_no_window_twice(k, per_text):
    rng = np.random.default_rng(0)
    theta, root = rng.normal(size=200), 0.3 * rng.normal(size=(200, 30))
    windows = next_windows(theta, root, np.zeros((200, k), int), per_text, np.random.default_rng(1))
    seen = np.bincount(windows.ravel(), minlength=200)
    assert seen.max() <= per_text
    assert seen.mean() > 0.8 * per_text
    assert all(len(set(window)) == k for window in windows.tolist())
    assert len({tuple(sorted(window)) for window in windows.tolist()}) == len(windows)
    again = next_windows(theta, root, np.zeros((200, k), int), per_text, np.random.default_rng(1))
    np.testing.assert_array_equal(windows, again)


@pytest.mark.parametrize("k", [2, 3])
def test_a_swiss_round_has_windows_of_similar_texts(k):
    theta = np.random.default_rng(0).normal(0.0, 5.0, 200)
    windows = swiss_windows(theta, np.zeros((200, k), int), 2, np.random.default_rng(1))
    seen = np.bincount(windows.ravel(), minlength=200)
    assert seen.max() == 2
    assert seen.mean() > 1.9
    assert all(len(set(window)) == k for window in windows.tolist())
    assert np.ptp(theta[windows], axis=1).mean() < 0.2 * np.ptp(np.random.default_rng(2).choice(theta, (400, k)), axis=1).mean()


def test_positions_stay_balanced_over_rounds():
    rng = np.random.default_rng(0)
    theta, root, counts = rng.normal(size=100), 0.3 * rng.normal(size=(100, 20)), np.zeros((100, 2), int)
    for _ in range(15):
        windows = next_windows(theta + 0.3 * rng.normal(size=100), root, counts, 2, rng)
        for position in (0, 1):
            counts[:, position] += np.bincount(windows[:, position], minlength=100)
    assert np.abs(counts[:, 0] - counts[:, 1]).mean() < 1.5
    assert counts[:, 0].sum() == counts[:, 1].sum()


def answered(theta: np.ndarray, windows: np.ndarray, rng: np.random.Generator) -> Orders:
    best_first = np.argsort(-(theta[windows] + rng.gumbel(size=windows.shape)), axis=1)
    return Orders(np.take_along_axis(windows, best_first, axis=1), np.ones(len(windows)))


@pytest.mark.parametrize(("sd", "share"), [(3.0, 0.65), (5.0, 0.5)])
def test_adaptive_windows_need_fewer_questions_than_a_balanced_plan(sd, share):
    """One simulation of `python -m benchmarks.adaptive`, which has the figures."""
    rng = np.random.default_rng(3)
    theta = rng.normal(0.0, sd, 300)
    balanced = fit(LikelihoodShard(300, [answered(theta, plan(300, WindowsConfig(m=40), rng).items_WK, rng)]))
    first = plan(300, WindowsConfig(m=2), rng).items_WK
    orders, counts, num_windows = [answered(theta, first, rng)], np.full((300, 2), 1), len(first)
    while num_windows < share * 40 * 300 / 2:
        result = fit(LikelihoodShard(300, orders))
        windows = next_windows(result.theta_N, result.root_NS, counts, 2, rng)
        counts += np.stack([np.bincount(position, minlength=300) for position in windows.T], axis=1)
        orders.append(answered(theta, windows, rng))
        num_windows += len(windows)
    adaptive = fit(LikelihoodShard(300, orders))
    assert spearmanr(adaptive.theta_N, theta)[0] >= spearmanr(balanced.theta_N, theta)[0]
