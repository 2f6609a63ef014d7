"""The correlation with people from the direction of texts alone, and intervals that hold their intensity."""

import numpy as np
import pytest

from tests.ranking.content_worlds import World, world
from valueflow.ranking.content_error import ContentError
from valueflow.ranking.known_directions import Auc, DirectedTexts, are_directions, auc, from_directions, pooled
from valueflow.ranking.rating_regression import from_ratings


def directed(at: World, count: int) -> DirectedTexts:
    own = at.own()
    return DirectedTexts(*(column[:count] for column in own), np.sign(at.truth_N[:count]))


def before(at: World) -> ContentError:
    """What a version says without any label: how far people's intensities are spread."""
    return ContentError(spread=float(at.truth_N.std()))


@pytest.mark.parametrize("rho", [0.2, 0.5, 0.9])
def test_the_auc_of_bivariate_normals_is_that_of_the_formula(rho):
    rng = np.random.default_rng(0)
    y, e = rng.normal(size=(2, 40_000))
    x = rho * y + np.sqrt(1 - rho**2) * e
    at = auc(DirectedTexts(x, x, x, np.sign(y)))
    assert at.mean == pytest.approx(0.5 + 2 / np.pi * np.arcsin(rho / np.sqrt(2)), abs=4 * at.variance**0.5)


def test_the_variance_of_an_auc_is_that_over_samples():
    rng = np.random.default_rng(0)
    aucs = []
    for _ in range(400):
        x = np.concatenate([rng.normal(0.8, 1, 25), rng.normal(0, 1, 35)])
        aucs.append(auc(DirectedTexts(x, x, x, np.repeat([1, -1], [25, 35]))))
    assert np.mean([at.variance for at in aucs]) == pytest.approx(np.var([at.mean for at in aucs]), rel=0.2)
    ties = DirectedTexts(*(np.zeros(6),) * 3, np.array([1, 1, 1, -1, -1, -1]))
    assert auc(ties).mean == 0.5
    apart = DirectedTexts(*(np.arange(6.0),) * 3, np.array([-1, -1, -1, 1, 1, 1]))
    assert auc(apart).mean == 1
    assert auc(apart).variance > 0


def test_values_share_what_their_texts_tell():
    equal, new = pooled({f"v{i}": Auc(0.7 + 0.01 * (i % 3), 0.01) for i in range(9)})
    assert np.ptp([at.mean for at in equal.values()]) < 1e-9
    assert new.variance == pytest.approx(0.01 / 9)
    apart, wide = pooled({f"v{i}": Auc(0.5 + 0.4 * (i % 2), 0.0001) for i in range(8)})
    assert np.ptp([at.mean for at in apart.values()]) > 0.39
    assert wide.variance > 0.03
    assert pooled({"v": Auc(0.7, 0.01)}) == ({"v": Auc(0.7, 0.01)}, Auc(0.7, 0.01))


def test_directions_tell_nearly_the_slope_that_ratings_tell():
    worlds = {f"v{v}": world(v, 1.0, num_neutral=0) for v in range(12)}
    of_sides = from_directions(
        {v: directed(at, 200) for v, at in worlds.items()}, {v: before(at) for v, at in worlds.items()}, "{n}"
    )
    of_ratings = from_ratings({v: at.rated(200, v) for v, at in worlds.items()}, list(worlds), "ratings", "")
    slopes = [np.mean([error.slope for error in errors.values()]) for errors in (of_sides, of_ratings)]
    assert slopes[0] == pytest.approx(slopes[1], rel=0.1)
    assert {(error.basis, error.n, error.source) for error in of_sides.values()} == {("direction", 2400, "2,400")}
    assert not any(error.calibrated_to_people for error in of_sides.values())


def test_a_value_without_texts_has_a_new_values_error_and_too_few_tell_nothing():
    at = world(0, 1.0, num_neutral=0)
    errors = from_directions({"v": directed(at, 60)}, {"v": before(at), "w": before(at)}, "")
    assert errors["w"].slope == pytest.approx(errors["v"].slope, rel=0.05)
    assert from_directions({"v": directed(at, 19)}, {"v": before(at)}, "") == {}
    one_side = directed(at, 60)._replace(side_N=np.ones(60))
    assert from_directions({"v": one_side}, {"v": before(at)}, "") == {}


def test_the_error_of_the_zero_and_of_the_anchors_is_what_was_known():
    at = world(0, 1.0, num_neutral=0)
    known = before(at).model_copy(update={"slope": 0.8, "shared_sd": 0.4, "anchor_sd": 1.5})
    error = from_directions({"v": directed(at, 100)}, {"v": known}, "")["v"]
    assert error.shared_sd == pytest.approx(0.5 * error.slope)
    assert error.anchor_sd == 1.5


def test_a_judge_against_people_has_no_slope():
    at = world(0, 0.5, num_neutral=0)
    against = directed(at, 100)._replace(side_N=-np.sign(at.truth_N[:100]))
    assert from_directions({"v": against}, {"v": before(at)}, "")["v"].slope == 0


def test_directions_are_told_from_ratings():
    assert are_directions(np.array([1.0, -1.0, 0.0]))
    assert not are_directions(np.array([1.0, -2.0, 0.5]))


def coverage(seeds, content: float, reliability: float, count: int, num_values: int, tails: str = "normal") -> float:
    """Of texts whose direction nobody told."""
    shares = []
    for seed in seeds:
        worlds = {f"v{v}": world(1000 * seed + v, content, reliability, tails, count + 200, 0) for v in range(num_values)}
        known = {v: before(at) for v, at in worlds.items()}
        errors = from_directions({v: directed(at, count) for v, at in worlds.items()}, known, "")
        rest = {v: World(*(column[count:] for column in at)) for v, at in worlds.items()}
        shares += [rest[v].coverage(errors[v].total(*rest[v].own())) for v in worlds]
    return float(np.mean(shares))


@pytest.mark.parametrize("content", [0.5, 1.0, 2.0])
def test_intervals_hold_the_intensity_of_other_texts(content):
    assert 0.92 <= coverage(range(4), content, 0.9, 60, 4) <= 0.98


@pytest.mark.statistics
@pytest.mark.parametrize("reliability", [0.4, 0.8, 0.95])
@pytest.mark.parametrize("content", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("num_values", "count"), [(1, 60), (12, 30)])
def test_coverage_from_directions_over_the_grid(num_values, count, content, reliability):
    seeds = range(100, 140 if num_values == 1 else 106)
    assert 0.93 <= coverage(seeds, content, reliability, count, num_values) <= 0.975
    for tails in ("t3", "topics"):
        assert coverage(seeds, content, reliability, count, num_values, tails) >= 0.9
