"""Sums with partial orders and judges against brute force; a covariance from draws against the exact one."""

import itertools

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize

from valueflow.ranking import covariance
from valueflow.ranking.likelihood import LikelihoodShard
from valueflow.ranking.orders import Orders
from valueflow.ranking.plackett_luce import fit

NUM_ITEMS, NUM_JUDGES, NUM_POSITIONS = 8, 3, 4


def judged(num_windows: int, seed: int, beta: list[float], gamma: np.ndarray, k: int, theta: np.ndarray) -> Orders:
    """Simulated orders of judges with these sharpnesses and position effects."""
    rng = np.random.default_rng(seed)
    items = np.stack([rng.choice(len(theta), k, replace=False) for _ in range(num_windows)])
    judge = rng.integers(len(beta), size=num_windows)
    x = np.array(beta)[judge][:, None] * theta[items] + gamma[judge][:, :k]
    positions = np.argsort(-(x + rng.gumbel(size=x.shape)), axis=1)
    return Orders(np.take_along_axis(items, positions, axis=1), np.ones(num_windows), positions, judge)


def log_likelihood(phi: np.ndarray, orders: list[Orders]) -> float:
    """The definition, window by window."""
    theta, beta, gamma = np.split(phi, [NUM_ITEMS, NUM_ITEMS + NUM_JUDGES])
    gamma, total = gamma.reshape(NUM_JUDGES, NUM_POSITIONS), 0.0
    for o in orders:
        for items, positions, judge, weight in zip(o.items_WK, o.positions_WK, o.judge_W, o.weight_W, strict=True):
            x = beta[judge] * theta[items] + gamma[judge][positions]
            total += weight * sum(x[a] - np.log(np.exp(x[a:]).sum()) for a in range(o.stages))
    return total


@pytest.fixture
def orders() -> list[Orders]:
    theta = np.random.default_rng(0).normal(size=NUM_ITEMS)
    gamma = np.random.default_rng(1).normal(size=(NUM_JUDGES, NUM_POSITIONS))
    of = [judged(40, seed, [0.5, 1.0, 1.5], gamma, k, theta) for seed, k in ((2, 2), (3, 4))]
    return [*of, judged(30, 4, [0.5, 1.0, 1.5], gamma, 4, theta)._replace(top=1)]


def test_judges_and_partial_orders_have_the_likelihood_gradient_and_information_of_the_definition(orders):
    shard = LikelihoodShard(NUM_ITEMS, orders, NUM_JUDGES, NUM_POSITIONS)
    phi = np.random.default_rng(5).normal(size=shard.layout.size)
    moments = shard.moments(phi)
    assert moments.log_likelihood == pytest.approx(log_likelihood(phi, orders))
    np.testing.assert_allclose(moments.gradient, approx_fprime(phi, lambda p: log_likelihood(p, orders), 1e-6), atol=1e-3)
    information = shard.information(phi)
    np.testing.assert_allclose(np.diag(information), moments.diagonal, atol=1e-10)
    v = np.random.default_rng(6).normal(size=shard.layout.size)
    np.testing.assert_allclose(shard.product(phi, v), information @ v, atol=1e-10)
    # Fisher's information is the second derivative where x is linear in the parameters: theta alone, gamma alone.
    for part in (slice(0, NUM_ITEMS), slice(NUM_ITEMS + NUM_JUDGES, None)):
        numerical = -np.array([approx_fprime(phi, lambda p, i=i: shard.moments(p).gradient[i], 1e-6) for i in range(len(phi))])
        np.testing.assert_allclose(information[part, part], numerical[part, part], atol=1e-4)


def test_a_top_choice_is_a_softmax_over_the_window():
    every = np.array(list(itertools.permutations(range(4))))
    theta = np.array([0.5, -1.0, 0.2, 1.4])
    for order in every:
        value = LikelihoodShard(4, [Orders(order[None], np.ones(1), top=1)]).moments(theta).log_likelihood
        assert value == pytest.approx(theta[order[0]] - np.log(np.exp(theta).sum()))


@pytest.mark.parametrize("top", [None, 1, 2])
def test_the_mode_equals_brute_force_with_ties_and_partial_orders(top):
    rng = np.random.default_rng(7)
    items = np.stack([rng.choice(6, 4, replace=False) for _ in range(30)])
    tied = np.array([[0, 1], [1, 0], [2, 3], [3, 2]])
    orders = [Orders(items, np.ones(30), top=top), Orders(tied, np.full(4, 0.5))]

    def objective(theta: np.ndarray) -> float:
        total = 0.0
        for o in orders:
            for row, weight in zip(o.items_WK, o.weight_W, strict=True):
                total += weight * sum(theta[row[a]] - np.log(np.exp(theta[row[a:]]).sum()) for a in range(o.stages))
        return 0.5 * theta @ theta / 4.0 - total

    best = minimize(objective, np.zeros(6), method="BFGS", options={"gtol": 1e-9}).x
    np.testing.assert_allclose(fit(LikelihoodShard(6, orders), prior_sd=2.0).mode_N, best, atol=1e-5)


def test_parameters_of_simulated_judges_are_recovered_and_ignoring_judges_is_worse():
    """Seven judges: sharpness 0.3, 1, 2 and others, positions worth up to 1.5 nats, one that answers at random."""
    rng = np.random.default_rng(8)
    theta = rng.normal(0.0, 1.5, 120)
    theta -= theta.mean()
    beta = [0.3, 1.0, 2.0, 1.0, 0.7, 1.5, 0.0]
    gamma = np.array([[1.5, -1.5], [0.0, 0.0], [-0.8, 0.8], [1.0, -1.0], [0.0, 0.0], [0.4, -0.4], [0.5, -0.5]])
    orders = judged(6000, 9, beta, gamma, 2, theta)
    result = fit(LikelihoodShard(120, [orders], 7, 2))
    np.testing.assert_allclose(result.beta_J[:6] / result.beta_J[1], beta[:6], rtol=0.2)
    # The unit is the sharpness of the average judge; the precision of a log sharpness is that of beta, times beta^2.
    phi = np.concatenate([theta, beta, gamma.ravel()])
    precision = np.array(beta[:6]) ** 2 * LikelihoodShard(120, [orders], 7, 2).moments(phi).diagonal[120:126]
    unit = np.exp(np.average(np.log(beta[:6]), weights=precision))
    np.testing.assert_allclose(result.beta_J[:6], np.array(beta[:6]) / unit, rtol=0.2)
    assert result.beta_J[6] == pytest.approx(0.0, abs=1e-6)  # and the last judge is uninformative
    np.testing.assert_allclose(result.gamma_JP - result.gamma_JP.mean(1, keepdims=True), gamma, atol=0.3)

    def error(estimate: np.ndarray) -> float:
        gain = estimate @ theta / (estimate @ estimate)
        return float(np.sqrt(np.mean((gain * estimate - theta) ** 2)))

    # The oracle has the true beta and gamma: windows of one judge are pairs with fixed offset and slope.
    a, b = orders.items_WK.T
    beta_W = np.array(beta)[orders.judge_W]
    offset_W = gamma[orders.judge_W, orders.positions_WK[:, 0]] - gamma[orders.judge_W, orders.positions_WK[:, 1]]

    def oracle(t: np.ndarray) -> tuple[float, np.ndarray]:
        d = beta_W * (t[a] - t[b]) + offset_W
        p = 1 / (1 + np.exp(d))
        gradient = np.bincount(a, beta_W * p, 120) - np.bincount(b, beta_W * p, 120) - t / 1.5**2
        return float(np.logaddexp(0, -d).sum() + 0.5 * t @ t / 1.5**2), -gradient

    oracle_theta = minimize(oracle, np.zeros(120), jac=True, method="L-BFGS-B", options={"maxiter": 2000}).x
    ignorant = fit(LikelihoodShard(120, [orders._replace(positions_WK=None, judge_W=None)])).theta_N
    assert error(result.theta_N) <= 1.1 * error(oracle_theta)
    assert error(result.theta_N) < 0.9 * error(ignorant)


@pytest.mark.parametrize("seed", range(4))
def test_a_nearly_silent_judge_does_not_set_the_unit_of_theta(seed):
    """Two equal judges, and a third of sharpness 0.08 that is just informative: theta keeps its unit."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(0.0, 1.5, 60)
    theta -= theta.mean()
    both = judged(3000, seed + 10, [1.0, 1.0], np.zeros((2, 2)), 2, theta)
    silent = judged(1500, seed + 20, [0.08], np.zeros((1, 2)), 2, theta)
    result = fit(LikelihoodShard(60, [both, silent._replace(judge_W=np.full(1500, 2))], 3, 2))
    without = fit(LikelihoodShard(60, [both], 2, 2))
    assert 0.02 < result.beta_J[2] < 0.2  # it is not left out as uninformative
    assert result.theta_N @ theta == pytest.approx(without.theta_N @ theta, rel=0.08)
    assert result.prior_sd == pytest.approx(without.prior_sd, rel=0.08)


def test_a_covariance_from_draws_is_the_exact_one_within_its_error(monkeypatch):
    rng = np.random.default_rng(10)
    theta = rng.normal(0.0, 2.0, 300)
    items = np.stack([rng.choice(300, 2, replace=False) for _ in range(4000)])
    worse = theta[items[:, 0]] + rng.gumbel(size=4000) < theta[items[:, 1]] + rng.gumbel(size=4000)
    items[worse] = items[worse, ::-1]
    shard = LikelihoodShard(300, [Orders(items, np.ones(4000))])
    exact = fit(shard)
    monkeypatch.setattr(covariance, "MAX_DENSE", 0)
    drawn = fit(shard)
    np.testing.assert_allclose(drawn.theta_N, exact.theta_N, atol=0.15)
    assert np.abs(drawn.standard_error_N / exact.standard_error_N - 1).mean() < 0.02
    assert drawn.prior_sd == pytest.approx(exact.prior_sd, rel=0.005)
    a, b = rng.integers(300, size=(2, 200))
    apart = a != b
    ratio = drawn.contrast_errors(a[apart], b[apart]) / exact.contrast_errors(a[apart], b[apart])
    assert abs(ratio.mean() - 1) < 0.05
    assert ratio.std() < 0.15
