"""Plackett-Luce: published results, another implementation, numerical derivatives, recovery of simulated truth, invariances."""

import itertools
import json

import choix
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, minimize
from threadpoolctl import threadpool_limits

from benchmarks.coverage import simulate
from valueflow.ranking.likelihood import LikelihoodShard
from valueflow.ranking.newton import NotConverged
from valueflow.ranking.orders import Orders, orders_of
from valueflow.ranking.plackett_luce import fit
from valueflow.ranking.prior import ItemPriors, parameter_prior
from valueflow.records import SCHEMAS

NUM_ITEMS = 12


def mixed_orders(num_items: int, lengths: list[int], seed: int, weighted: bool = False, sd: float = 1.5) -> list[Orders]:
    """Simulated Plackett-Luce orders of several lengths; `lengths` has one entry per order."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(0.0, sd, num_items)
    orders = []
    for k, group in itertools.groupby(sorted(lengths)):
        items = np.stack([rng.choice(num_items, k, replace=False) for _ in group])
        best_first = np.argsort(-(theta[items] + rng.gumbel(size=items.shape)), axis=1)
        weight = rng.uniform(0.1, 2.0, len(items)) if weighted else np.ones(len(items))
        keys = rng.integers(2**63, size=len(items), dtype=np.uint64)
        orders.append(Orders(np.take_along_axis(items, best_first, axis=1), weight, key_W=keys))
    return orders


@pytest.fixture
def shard() -> LikelihoodShard:
    return LikelihoodShard(NUM_ITEMS, mixed_orders(NUM_ITEMS, [2, 3, 5] * 10, seed=0, weighted=True))


@pytest.fixture
def theta() -> np.ndarray:
    return np.random.default_rng(1).normal(0.0, 1.0, NUM_ITEMS)


def test_nascar_2002_has_the_published_worths(data):
    """Hunter (2004), Ann. Statist. 32(1): the season without the four drivers who were always last."""
    races = json.loads((data / "plackett_luce" / "nascar2002.json").read_text())["races"]
    published = json.loads((data / "plackett_luce" / "nascar2002_mle.json").read_text())
    names = sorted(published["gamma"])
    number = {name: i for i, name in enumerate(names)}
    orders = sorted(([number[name] for name in race if name in number] for race in races), key=len)
    by_length = [np.array(list(group)) for _, group in itertools.groupby(orders, key=len)]
    result = fit(LikelihoodShard(83, [Orders(items, np.ones(len(items))) for items in by_length]), prior_sd=1e4)
    worth = np.exp(result.mode_N) / np.exp(result.mode_N).sum()
    np.testing.assert_allclose(worth, [published["gamma"][name] for name in names], atol=5e-5)
    assert result.log_likelihood == pytest.approx(published["loglik"], abs=1e-6)
    assert result.num_components == 1


@pytest.mark.parametrize("alpha", [0.02, 0.5])
def test_the_mode_equals_that_of_choix(alpha):
    orders = mixed_orders(25, [2, 3, 5] * 40, seed=2)
    plain = [tuple(row) for group in orders for row in group.items_WK]
    theirs = choix.opt_rankings(25, plain, alpha=alpha, method="Newton-CG", tol=1e-10)
    ours = fit(LikelihoodShard(25, orders), prior_sd=1 / np.sqrt(2 * alpha)).mode_N
    np.testing.assert_allclose(ours, theirs - theirs.mean(), atol=1e-6)


def test_two_items_have_the_closed_form():
    """w wins against l with N(0, s^2) on each: the difference d solves w - (w + l) / (1 + e^-d) = d / (2 s^2)."""
    orders = Orders(np.array([[0, 1], [1, 0]]), np.array([7.0, 3.0]))
    mode = fit(LikelihoodShard(2, [orders]), prior_sd=2.0).mode_N
    difference = mode[0] - mode[1]
    assert 7 - 10 / (1 + np.exp(-difference)) == pytest.approx(difference / (2 * 2.0**2), abs=1e-8)


def test_the_gradient_is_that_of_the_log_likelihood(shard, theta):
    numerical = approx_fprime(theta, lambda x: shard.moments(x).log_likelihood, 1e-6)
    np.testing.assert_allclose(shard.moments(theta).gradient, numerical, atol=1e-4)


def test_the_information_is_the_negative_derivative_of_the_gradient(shard, theta):
    numerical = -approx_fprime(theta, lambda x: shard.moments(x).gradient, 1e-6)
    information = shard.information(theta)
    np.testing.assert_allclose(information, numerical, atol=1e-4)
    np.testing.assert_allclose(information, information.T, atol=1e-12)
    np.testing.assert_allclose(information.sum(1), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.diag(information), shard.moments(theta).diagonal, atol=1e-12)
    v = np.random.default_rng(2).normal(size=NUM_ITEMS)
    np.testing.assert_allclose(shard.product(theta, v), information @ v, atol=1e-12)


def test_the_skewness_is_the_contraction_of_the_third_derivatives(shard, theta):
    root = np.random.default_rng(3).normal(size=(NUM_ITEMS, NUM_ITEMS))
    covariance, step = root @ root.T, 1e-5
    numerical = np.empty(NUM_ITEMS)
    for item, along in enumerate(np.eye(NUM_ITEMS) * step):
        change = shard.information(theta + along) - shard.information(theta - along)
        numerical[item] = (change / (2 * step) * covariance).sum()
    np.testing.assert_allclose(shard.skewness(theta, np.linalg.cholesky(covariance)), numerical, rtol=1e-5, atol=1e-5)


def test_probabilities_of_all_orders_sum_to_one(theta):
    for k in (2, 3, 4):
        every = np.array(list(itertools.permutations(range(k))))
        each = [LikelihoodShard(NUM_ITEMS, [Orders(order[None], np.ones(1))]).moments(theta).log_likelihood for order in every]
        assert np.exp(each).sum() == pytest.approx(1.0)


SIZES = st.lists(st.integers(2, 5), min_size=1, max_size=30)


@given(SIZES, st.integers(0, 99), st.floats(-50, 50))
def test_a_shift_of_all_worths_changes_nothing(lengths, seed, shift):
    sums = LikelihoodShard(6, mixed_orders(6, lengths, seed, weighted=True))
    theta = np.random.default_rng(seed).normal(size=6)
    before, after = sums.moments(theta), sums.moments(theta + shift)
    assert after.log_likelihood == pytest.approx(before.log_likelihood, rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(after.gradient, before.gradient, atol=1e-9)


@settings(max_examples=25)
@given(SIZES, st.integers(0, 99), st.permutations(range(6)))
def test_relabelling_the_items_relabels_the_result(lengths, seed, names):
    orders, names = mixed_orders(6, lengths, seed), np.array(names)
    plain = fit(LikelihoodShard(6, orders), prior_sd=2.0)
    renamed = fit(LikelihoodShard(6, [Orders(names[items], weight) for items, weight, *_ in orders]), prior_sd=2.0)
    np.testing.assert_allclose(renamed.theta_N[names], plain.theta_N, atol=1e-7)
    np.testing.assert_allclose(renamed.standard_error_N[names], plain.standard_error_N, atol=1e-7)


@settings(max_examples=25)
@given(SIZES, st.integers(0, 99))
def test_duplicated_data_are_doubled_weights(lengths, seed):
    orders = mixed_orders(6, lengths, seed)
    twice = fit(LikelihoodShard(6, orders + orders), prior_sd=2.0)
    doubled = fit(LikelihoodShard(6, [Orders(items, 2 * weight) for items, weight, *_ in orders]), prior_sd=2.0)
    np.testing.assert_allclose(doubled.theta_N, twice.theta_N, atol=1e-7)
    np.testing.assert_allclose(doubled.counts.num_windows_N, twice.counts.num_windows_N)
    assert doubled.counts.num_comparisons == twice.counts.num_comparisons


@settings(max_examples=25)
@given(SIZES, st.integers(0, 99), st.integers(1, 5))
def test_any_split_over_shards_gives_the_same_sums(lengths, seed, num_shards):
    orders = mixed_orders(6, lengths, seed, weighted=True)
    rng = np.random.default_rng(seed)
    theta, root = rng.normal(size=6), rng.normal(size=(6, 4))
    parts: list[list[Orders]] = [[] for _ in range(num_shards)]
    for order in orders:
        items, weight, keys = order.items_WK, order.weight_W, order.key_W
        goes_to = rng.integers(num_shards, size=len(items))
        for at, part in enumerate(parts):
            if (goes_to == at).any():
                mine = goes_to == at
                part.append(Orders(items[mine], weight[mine], key_W=keys[mine]))
    whole, shards = LikelihoodShard(6, orders), [LikelihoodShard(6, part) for part in parts]
    moments = [shard.moments(theta) for shard in shards]
    np.testing.assert_allclose(sum(m.log_likelihood for m in moments), whole.moments(theta).log_likelihood)
    np.testing.assert_allclose(sum(m.gradient for m in moments), whole.moments(theta).gradient, atol=1e-12)
    np.testing.assert_allclose(sum(m.diagonal for m in moments), whole.moments(theta).diagonal, atol=1e-12)
    for name, arguments in (
        ("information", (theta,)),
        ("product", (theta, rng.normal(size=6))),
        ("skewness", (theta, root)),
        ("draws", (theta,)),
    ):
        total = sum(getattr(shard, name)(*arguments) for shard in shards)
        np.testing.assert_allclose(abs(total - getattr(whole, name)(*arguments)).max(), 0.0, atol=1e-10)
    counts = [shard.counts() for shard in shards]
    np.testing.assert_allclose(sum(c.wins_N for c in counts), whole.counts().wins_N)
    np.testing.assert_allclose(sum(c.num_windows_N for c in counts), whole.counts().num_windows_N)


def test_counts_are_windows_wins_and_comparisons():
    orders = [Orders(np.array([[0, 1, 2]]), np.ones(1)), Orders(np.array([[2, 0], [0, 2]]), np.array([0.25, 0.75]))]
    counts = LikelihoodShard(4, orders).counts()
    np.testing.assert_allclose(counts.num_windows_N, [2, 1, 2, 0])
    np.testing.assert_allclose(counts.wins_N, [2.75, 1, 0.25, 0])
    assert counts.num_comparisons == 3


def test_components_are_the_groups_without_common_windows():
    orders = [Orders(np.array([[0, 1, 2], [2, 1, 0]]), np.ones(2)), Orders(np.array([[3, 4]]), np.ones(1))]
    result = fit(LikelihoodShard(6, orders), prior_sd=2.0)
    assert result.num_components == 3
    component = result.counts.component_N
    assert component[0] == component[1] == component[2]
    assert len({component[0], component[3], component[5]}) == 3
    # A text without windows keeps the prior: its mode is 0 and its standard error is the largest.
    assert result.mode_N[5] == 0.0
    assert result.standard_error_N.argmax() == 5


@pytest.mark.parametrize(
    "orders", [[], [Orders(np.empty((0, 2), int), np.empty(0))], [Orders(np.array([[0, 1]]), np.zeros(1))]]
)
def test_a_fit_without_comparisons_fails(orders):
    with pytest.raises(NotConverged, match="no usable comparison: every ranking is missing or failed"):
        fit(LikelihoodShard(3, orders))


def test_an_unreachable_tolerance_fails():
    with pytest.raises(NotConverged, match=r"gradient .* per comparison after 100 Newton steps, tolerance 0e\+00"):
        fit(LikelihoodShard(NUM_ITEMS, mixed_orders(NUM_ITEMS, [3] * 40, 0)), prior_sd=2.0, tolerance=0.0)


@pytest.mark.parametrize("orders", [Orders(np.array([[0], [1]]), np.ones(2)), Orders(np.array([[0, 1]]), np.ones(2))])
def test_orders_of_one_item_or_without_a_weight_each_are_refused(orders):
    with pytest.raises(ValueError, match="items of shape"):
        LikelihoodShard(2, [orders])


def test_a_judge_without_contradictions_has_a_finite_fit():
    chain = np.array([[i, j] for i in range(10) for j in range(i + 1, 10)])
    result = fit(LikelihoodShard(10, [Orders(chain, np.ones(len(chain)))]))
    assert (np.diff(result.theta_N) < 0).all()
    assert np.isfinite(result.theta_N).all()
    assert np.isfinite(result.standard_error_N).all()
    assert result.prior_sd <= 10.0


def test_a_judge_with_ties_only_has_a_finite_fit():
    """Every pair in both presentations, always a tie: EM would converge to a spread of zero without end."""
    circle = np.array([[i, (i + 1) % 16] for i in range(16)])
    both = np.concatenate([circle, circle[:, ::-1]])
    result = fit(LikelihoodShard(16, [Orders(both, np.full(32, 0.5)), Orders(both[:, ::-1], np.full(32, 0.5))]))
    assert result.prior_sd == pytest.approx(0.1)
    np.testing.assert_allclose(result.theta_N, 0.0, atol=1e-6)
    assert (result.standard_error_N > 0.09).all()


def test_an_estimated_prior_has_converged_or_the_fit_fails():
    """A weak judge: 54 texts of true spread 0.3, each in 4 pairs."""
    orders = mixed_orders(54, [2] * 108, seed=1, sd=0.3)
    shard = LikelihoodShard(54, orders)
    try:
        with threadpool_limits(1):
            result = fit(shard)
    except NotConverged:
        return
    covariance = np.linalg.inv(shard.information(result.theta_N) + np.eye(54) / result.prior_sd**2)
    next_sd = np.sqrt((result.theta_N @ result.theta_N + np.trace(covariance)) / 54)
    assert next_sd == pytest.approx(result.prior_sd, rel=2e-3)


def test_mean_and_standard_errors_are_those_of_the_second_order(shard):
    result = fit(shard, prior_sd=1.5)

    def covariance(theta: np.ndarray) -> np.ndarray:
        return np.linalg.inv(shard.information(theta) + np.eye(NUM_ITEMS) / 1.5**2)

    at_mode = covariance(result.mode_N)
    mean = result.mode_N - 0.5 * at_mode @ shard.skewness(result.mode_N, np.linalg.cholesky(at_mode))
    np.testing.assert_allclose(result.theta_N, mean - mean.mean(), atol=1e-10)
    # Only differences are identified: the error of an item is that of its difference from the mean of all.
    centring = np.eye(NUM_ITEMS) - 1 / NUM_ITEMS
    np.testing.assert_allclose(result.standard_error_N**2, np.diag(centring @ covariance(mean) @ centring), atol=1e-10)


def test_a_fit_records_its_convergence(shard):
    result = fit(shard, tolerance=1e-7)
    assert result.gradient_norm <= result.tolerance == 1e-7
    assert result.iterations >= 1
    assert result.theta_N.mean() == pytest.approx(0.0, abs=1e-12)
    assert result.log_likelihood == pytest.approx(shard.moments(result.mode_N).log_likelihood)


def test_one_simulated_truth_is_recovered():
    spearman, coverage = simulate(k=2, m=40, sd=3.0, seed=0)
    assert spearman >= 0.98
    assert 0.93 <= coverage <= 0.97


@pytest.mark.statistics
def test_simulated_truth_is_recovered_and_the_intervals_hold_it():
    """`python -m benchmarks.coverage` is the same with 200 simulations."""
    spearman, coverage = np.mean([simulate(k=2, m=40, sd=3.0, seed=seed) for seed in range(15)], axis=0)
    assert spearman >= 0.98
    assert 0.93 <= coverage <= 0.97


def rankings(*answers: dict) -> pa.Table:
    rows = [
        {"window_id": f"w{i}", "theory": "svt", "value": "power", "round": 0, "judge": "j"} | answer
        for i, answer in enumerate(answers)
    ]
    return pa.Table.from_pylist(rows, SCHEMAS["rankings"])


def as_lists(orders: list[Orders]) -> list[tuple[list[int], float]]:
    pairs = [(i, w) for o in orders for i, w in zip(o.items_WK.tolist(), o.weight_W.tolist(), strict=True)]
    return sorted(pairs)


def test_individual_priors_of_items(shard):
    """The mode against a general optimiser of the posterior with those priors."""
    mean, sd = np.full(NUM_ITEMS, np.nan), np.full(NUM_ITEMS, np.nan)
    mean[:5], sd[:5] = [2.0, -1.0, 0.5, 3.0, -2.0], [0.1, 0.3, 0.5, 1.0, 1.0]
    result = fit(shard, prior_sd=1.5, item_priors=ItemPriors(mean, sd))
    believed_prior = parameter_prior(shard.layout, 1.5, item_priors=ItemPriors(mean, sd))

    def negative(theta: np.ndarray) -> float:
        return 0.5 * float((theta - believed_prior.mean) ** 2 @ believed_prior.precision) - shard.moments(theta).log_likelihood

    expected = minimize(negative, np.zeros(NUM_ITEMS), tol=1e-10).x
    np.testing.assert_allclose(result.mode_N, expected, atol=2e-4)
    assert result.standard_error_N[0] < 0.1  # never above the prior's standard deviation
    # Items with a tight prior stay at its mean, and so does the zero.
    exact = fit(
        shard,
        prior_sd=1.5,
        item_priors=ItemPriors(np.where(np.arange(NUM_ITEMS) < 5, 7.0, np.nan), np.where(sd > 0, 1e-6, np.nan)),
    )
    np.testing.assert_allclose(exact.theta_N[:5], 7.0, atol=1e-6)


def test_prior_sd_is_estimated_from_the_items_without_individual_priors():
    rng = np.random.default_rng(0)
    theta = np.concatenate([rng.normal(0.0, 0.2, 200), rng.normal(0.0, 3.0, 100)])
    pairs = np.stack([rng.choice(300, 2, replace=False) for _ in range(6000)])
    best_first = np.argsort(-(theta[pairs] + rng.gumbel(size=pairs.shape)), axis=1)
    orders = Orders(np.take_along_axis(pairs, best_first, axis=1), np.ones(len(pairs)))
    item_priors = ItemPriors(np.where(np.arange(300) < 200, theta, np.nan), np.where(np.arange(300) < 200, 0.05, np.nan))
    result = fit(LikelihoodShard(300, [orders]), item_priors=item_priors)
    assert result.prior_sd == pytest.approx(3.0, rel=0.2)
    inside = np.abs(result.theta_N - theta)[200:] < 1.96 * result.standard_error_N[200:]
    assert 0.88 <= inside.mean() <= 1.0


def test_rankings_become_item_numbers_best_first():
    table = rankings({"text_ids": ["c", "a", "b"], "order": [2, 0, 1]}, {"text_ids": ["b", "a"], "order": [1, 0]})
    assert as_lists(orders_of(table, ["a", "b", "c"])) == [([0, 1], 1.0), ([1, 2, 0], 1.0)]


def test_a_weighted_preference_is_two_orders():
    table = rankings(
        {"text_ids": ["a", "b"], "order": [0, 1], "weight": 0.75}, {"text_ids": ["c", "b"], "order": [0, 1]},
        {"text_ids": ["a", "c"], "order": [1, 0], "weight": 1.0},
    )  # fmt: skip
    orders = as_lists(orders_of(table, ["a", "b", "c"]))
    assert orders == [([0, 1], 0.75), ([0, 2], 0.0), ([1, 0], 0.25), ([2, 0], 1.0), ([2, 1], 1.0)]


def test_a_probability_of_one_half_favors_neither_text():
    ids = ["a", "b", "c"]
    table = rankings(
        {"text_ids": ["a", "b"], "order": [0, 1], "weight": 0.5}, {"text_ids": ["a", "b"], "order": [1, 0], "weight": 0.5}
    )
    result = fit(LikelihoodShard(3, orders_of(table, ids)), prior_sd=2.0)
    assert result.mode_N[0] == pytest.approx(result.mode_N[1])
    assert result.counts.num_windows_N.tolist() == [2.0, 2.0, 0.0]


def test_failed_answers_are_left_out_and_a_window_counts_once():
    twice = {"window_id": "w", "text_ids": ["a", "b"], "order": [0, 1]}
    table = rankings(twice, twice, {"text_ids": ["a", "b"], "error": "empty reply"}, {"text_ids": ["a", "b"], "order": [1, 0]})
    assert as_lists(orders_of(table, ["a", "b"])) == [([0, 1], 1.0), ([1, 0], 1.0)]
    assert orders_of(rankings({"text_ids": ["a", "b"], "error": "empty reply"}), ["a", "b"]) == []
