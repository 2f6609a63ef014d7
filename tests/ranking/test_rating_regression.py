"""People's ratings calibrate a judge: lines of values borrow from each other, and intervals hold texts that were not rated."""

import numpy as np
import pytest

from tests.ranking.content_worlds import World, world
from valueflow.ranking.rating_regression import (
    MIN_CONFORMAL,
    RatedTexts,
    conformal_factors,
    from_ratings,
    held_out_ratios,
)


def fitted(seed, num_values, count, content, tails="normal"):
    worlds = {f"v{v}": world(1000 * seed + v, content, tails=tails, size=count + 200, num_neutral=0) for v in range(num_values)}
    rated = {value: at.rated(count, f"{value}-") for value, at in worlds.items()}
    return worlds, from_ratings(rated, list(worlds), "ratings", "content error from {n} human ratings")


def coverage(seeds, num_values, count, content, tails="normal"):
    fits = (fitted(seed, num_values, count, content, tails) for seed in seeds)
    unrated = [(World(*(c[count:] for c in at)), errors[v]) for worlds, errors in fits for v, at in worlds.items()]
    return np.mean([at.coverage(error.total(*at.own())) for at, error in unrated])


@pytest.mark.parametrize(("num_values", "count"), [(1, 25), (1, 120), (6, 20)])
def test_intervals_hold_texts_that_nobody_rated(num_values, count):
    assert 0.92 <= coverage(range(6 if num_values > 1 else 20), num_values, count, 1.0) <= 0.98


def test_one_value_has_ordinary_least_squares():
    x = np.linspace(-8, 8, 30)
    y = 1.0 + 0.5 * x + np.random.default_rng(0).normal(size=30)
    error = from_ratings({"v": RatedTexts([str(i) for i in range(30)], x, x, x, y)}, ["v"], "ratings", "{n} ratings")["v"]
    slope, intercept = np.polyfit(x, y, 1)
    assert (error.slope, error.intercept, error.source, error.n) == (
        pytest.approx(slope),
        pytest.approx(intercept),
        "30 ratings",
        30,
    )
    # Student's prediction interval at a new point.
    residual = y - intercept - slope * x
    s2 = residual @ residual / 28
    expected = 2.0484 * np.sqrt(s2 * (1 + 1 / 30 + (5 - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()))
    total = error.total(np.array([5.0]), np.array([5.0]), np.array([5.0]))
    assert total.high_T[0] - total.intensity_T[0] == pytest.approx(expected, rel=1e-3)


def test_a_value_with_few_ratings_borrows_and_one_without_has_the_line_of_a_new_value():
    worlds, errors = fitted(1, 8, 20, 0.7)
    rated = {value: at.rated(20, value) for value, at in worlds.items()}
    rated["few"] = world(77, 0.7, num_neutral=0).rated(3, "few")
    errors = from_ratings(rated, [*rated, "none"], "record", "{n}")
    mean = np.mean([errors[value].slope for value in worlds])
    assert abs(errors["few"].slope - mean) < 0.2
    assert errors["none"].slope == pytest.approx(mean, abs=0.1)
    assert errors["none"].sd > 0
    assert errors["none"].n == 163


def test_too_few_ratings_tell_nothing():
    at = world(0, 1.0, num_neutral=0)
    assert from_ratings({"v": at.rated(19)}, ["v"], "ratings", "") == {}
    assert from_ratings({}, ["v"], "ratings", "") == {}
    assert list(from_ratings({"v": at.rated(25), "w": at.rated(5)}, ["v", "w", "x"], "ratings", "")) == ["v"]


def test_a_judge_that_contradicts_people_tells_nothing():
    at = world(0, 0.5, num_neutral=0)
    rated = at.rated(60)._replace(rating_N=-at.truth_N[:60])
    error = from_ratings({"v": rated}, ["v"], "ratings", "")["v"]
    assert error.slope == 0
    assert error.total(np.array([10.0]), np.array([10.0]), np.array([10.0])).low_T[0] < 0


def test_ratings_that_shaped_the_scale_count_for_less():
    at = world(0, 1.0, num_neutral=0).rated(30)
    plain, shaped = (from_ratings({"v": r}, ["v"], "ratings", "")["v"] for r in (at, at._replace(parameters=10)))
    assert shaped.sd > 1.15 * plain.sd


def test_conformal_factors_mend_intervals_of_the_wrong_shape():
    rng = np.random.default_rng(0)
    x = rng.uniform(-8, 8, 400)
    heavy = RatedTexts([str(i) for i in range(400)], x, x, x, np.clip(0.5 * x + 1.5 * rng.choice([-1, 1], 400), -10, 10))
    assert conformal_factors({"v": heavy}, ["v"])["v"] < 0.65  # two points have no tails
    assert conformal_factors({"v": heavy.take(np.arange(400) < MIN_CONFORMAL - 1)}, ["v"]) == {"v": 1.0}


def of_shape(name, size, draw):
    """Texts of one value whose ratings lie around the line as `draw(rng, size)` says."""
    rng = np.random.default_rng(len(name) + size)
    x = rng.uniform(-8, 8, size)
    return RatedTexts([f"{name}{i}" for i in range(size)], x, x, x, np.clip(0.5 * x + draw(rng, size), -10, 10))


def test_a_value_with_enough_ratings_has_its_own_conformal_factor_and_the_others_share_one():
    rated = {
        "two points": of_shape("two points", 300, lambda rng, n: 1.5 * rng.choice([-1, 1], n)),
        "heavy": of_shape("heavy", 300, lambda rng, n: rng.standard_t(2, n)),
        "few": of_shape("few", 40, lambda rng, n: rng.normal(size=n)),
        "fewer": of_shape("fewer", 20, lambda rng, n: rng.normal(size=n)),
    }
    factors = conformal_factors(rated, [*rated, "none"])
    assert factors["few"] == factors["fewer"] == factors["none"]
    assert factors["two points"] < factors["few"] < factors["heavy"]
    # The definition: the smallest factor by which at least ceil(0.95 (n + 1)) of the n texts outside the fit are covered.
    ratios = held_out_ratios(rated)
    for value, of_value in (*((v, ratios[v]) for v in ("two points", "heavy")), ("none", np.concatenate([*ratios.values()]))):
        least = np.ceil(0.95 * (len(of_value) + 1))
        assert (of_value <= factors[value]).sum() >= least > (of_value < factors[value]).sum()
    errors = from_ratings(rated, [*rated, "none"], "record", "")
    assert {value: error.factor for value, error in errors.items()} == factors


def test_the_own_factor_covers_texts_of_its_value_where_a_shared_one_does_not():
    shapes = {
        "a": lambda rng, n: rng.uniform(-3, 3, n),
        "b": lambda rng, n: rng.standard_t(2, n),
        "c": lambda rng, n: rng.normal(size=n),
    }
    rated = {name: of_shape(name, 200, draw) for name, draw in shapes.items()}
    errors = from_ratings(rated, list(rated), "ratings", "")
    for name, draw in shapes.items():
        new = of_shape(name, 5000, draw)
        total = errors[name].total(new.intensity_N, new.low_N, new.high_N)
        assert 0.92 <= ((total.low_T <= new.rating_N) & (new.rating_N <= total.high_T)).mean() <= 0.985, name


@pytest.mark.statistics
@pytest.mark.parametrize("tails", ["normal", "t3", "topics"])
@pytest.mark.parametrize("content", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("num_values", "count"), [(1, 100), (4, 25), (32, 4)])
def test_coverage_from_ratings_over_the_grid(num_values, count, content, tails):
    measured = coverage(range(40 if num_values == 1 else 10 if num_values == 4 else 3), num_values, count, content, tails)
    assert (0.93 if tails == "normal" else 0.9) <= measured <= 0.975
