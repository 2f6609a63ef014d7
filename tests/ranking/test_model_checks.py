"""Model checks: data of the model pass, and each simulated violation is detected by its check."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import expit, ndtr
from scipy.stats import binom
from threadpoolctl import threadpool_limits

from valueflow.ranking.likelihood import Layout
from valueflow.ranking.model_checks import BINS, Checks, check
from valueflow.ranking.orders import Orders
from valueflow.ranking.pairs import pairs_of, split

TOLERANCE = 1e-8


def windows(num_texts: int, k: int, num_windows: int, rng: np.random.Generator) -> np.ndarray:
    return np.argpartition(rng.random((num_windows, num_texts)), k, axis=1)[:, :k]


def ordered(
    perceived_WK: np.ndarray, items_WK: np.ndarray, judge_W: np.ndarray | None = None, top: int | None = None
) -> Orders:
    """Items sorted by their perceived worth, best first, with their positions in the window."""
    order_WK = np.argsort(-perceived_WK, axis=1)
    return Orders(np.take_along_axis(items_WK, order_WK, axis=1), np.ones(len(items_WK)), order_WK, judge_W, top)


def luce(num_texts: int, k: int, num_windows: int, seed: int, sd: float = 1.5, top: int | None = None) -> Orders:
    rng = np.random.default_rng(seed)
    items_WK = windows(num_texts, k, num_windows, rng)
    theta_N = rng.normal(0.0, sd, num_texts)
    return ordered(theta_N[items_WK] + rng.gumbel(size=items_WK.shape), items_WK, top=top)


def checked(orders: list[Orders], layout: Layout, prior_sd: float = 1.5) -> Checks:
    with threadpool_limits(1):
        return check(orders, layout, prior_sd, TOLERANCE)


def misses(checks: Checks) -> int:
    return sum(not b.low <= b.predicted <= b.high for b in checks.link)


def model(checks: Checks, name: str):
    return next(m for m in checks.models if m.model == name)


@pytest.mark.parametrize(("k", "num_windows", "top"), [(2, 6000, None), (5, 1200, None), (5, 2000, 2)])
def test_answers_of_plackett_luce_pass_every_check(k, num_windows, top):
    checks = checked([luce(200, k, num_windows, seed=3, top=top)], Layout(200))
    assert checks.windows == pytest.approx(num_windows / 5, rel=0.15)
    assert checks.pairs == checks.windows * sum(k - a for a in range(1, (top or k - 1) + 1))
    assert len(checks.link) == BINS
    assert abs(sum(b.pairs for b in checks.link) - checks.pairs) <= BINS
    assert misses(checks) <= binom.ppf(0.95, BINS, 0.05)
    # Intervals are narrow enough to be informative.
    assert max(b.high - b.low for b in checks.link) < 0.2
    assert [b.difference for b in checks.link] == sorted(b.difference for b in checks.link)
    assert checks.link[0].predicted < 0.56 < 0.95 < checks.link[-1].predicted
    triads = checks.transitivity
    assert triads.triads > 1000
    assert triads.low < triads.observed < triads.high < triads.low + 0.05
    assert [c.group for c in checks.context] == ([] if k == 2 else ["above", "between", "below"])
    assert all(c.low < 0 < c.high < 0.08 for c in checks.context)
    (judge,) = checks.judges
    assert judge.windows == checks.windows
    assert abs(judge.z) < 2.5
    assert [p.group for p in judge.places] == [str(p + 1) for p in range(k)]
    assert all(abs(p.residual) < 1.5 * (p.high - p.residual) for p in judge.places)
    assert [m.model for m in checks.models] == ["plackett-luce", "bradley-terry", "thurstone"]
    assert all(m.difference <= 1.96 * m.error for m in checks.models)
    assert checks.models[0].score == pytest.approx(judge.expected, abs=0.05)


def test_one_true_model_lies_within_its_intervals():
    check = checked([luce(150, 3, 1000, seed=0)], Layout(150))
    assert np.mean([b.low <= b.predicted <= b.high for b in check.link]) >= 0.9
    assert all(r.low < 0 < r.high for r in [*check.context, *check.judges[0].places])
    assert abs(check.judges[0].z) < 2
    assert check.transitivity.observed == pytest.approx(check.transitivity.expected, abs=0.01)


@pytest.mark.statistics
def test_intervals_hold_the_truth_and_z_is_in_standard_errors_when_the_model_is_true():
    results = [checked([luce(150, 3, 1000, seed=seed)], Layout(150)) for seed in range(25)]
    inside = [b.low <= b.predicted <= b.high for f in results for b in f.link]
    assert 0.93 <= np.mean(inside) <= 0.99
    around_zero = [r.low < 0 < r.high for f in results for r in [*f.context, *f.judges[0].places]]
    assert 0.92 <= np.mean(around_zero) <= 0.99
    z = [f.judges[0].z for f in results]
    assert abs(np.mean(z)) < 0.6
    assert 0.75 <= np.std(z) <= 1.25
    assert np.mean([f.transitivity.observed - f.transitivity.expected for f in results]) == pytest.approx(0.0, abs=0.01)


def test_bradley_terry_is_plackett_luce_for_pairs_and_another_model_for_longer_windows():
    pairs, longer = (checked([luce(100, k, w, seed=1)], Layout(100)) for k, w in ((2, 1500), (5, 400)))
    same, other = model(pairs, "bradley-terry"), model(longer, "bradley-terry")
    assert same.model_copy(update={"model": "plackett-luce"}) == model(pairs, "plackett-luce")
    assert (same.difference, same.error) == (0.0, 0.0)
    assert other.difference != 0.0
    assert other.error > 0.0


def linked(link: Callable[[np.ndarray], np.ndarray]) -> Checks:
    """All pairs of 40 widely spread texts, each with 50 answers in exactly the proportions of the link."""
    better, worse = np.triu_indices(40, 1)
    theta_N = np.linspace(2.0, -2.0, 40)
    share_W, items_W2 = link(theta_N[better] - theta_N[worse]), np.stack([better, worse], axis=1)
    return checked([Orders(items_W2, 50 * share_W), Orders(items_W2[:, ::-1], 50 * (1 - share_W))], Layout(40), prior_sd=2.0)


def test_the_link_with_the_better_held_out_score_is_that_of_the_data():
    probit, logit = linked(ndtr), linked(lambda x: expit(1.702 * x))
    better, worse = model(probit, "thurstone"), model(logit, "thurstone")
    assert better.difference > 5 * better.error > 0
    assert worse.difference < -5 * worse.error < 0
    assert better.score > worse.score
    # Of distant texts, the better one wins more often than under any logistic link that fits near ones.
    assert probit.link[-1].observed - probit.link[-1].predicted > 2 * abs(logit.link[-1].observed - logit.link[-1].predicted)


def decoyed(bonus: float, seed: int) -> Checks:
    """Windows of three; each of the upper two gains where the third lies below both, but only against the other."""
    rng = np.random.default_rng(seed)
    theta_N = rng.normal(0.0, 1.5, 60)
    items_W3 = windows(60, 3, 10000, rng)
    ranked_W3 = np.take_along_axis(items_W3, np.argsort(-theta_N[items_W3], axis=1), axis=1)
    perceived_W3 = theta_N[ranked_W3] + np.array([bonus, 0.0, 0.0]) + rng.gumbel(size=ranked_W3.shape)
    return checked([ordered(perceived_W3, ranked_W3)._replace(positions_WK=None)], Layout(60))


def test_a_decoy_effect_shows_in_the_context_check():
    planted, none = ({c.group: c for c in decoyed(bonus, seed=2).context} for bonus in (1.0, 0.0))
    assert planted["below"].low > 0.02
    assert planted["above"].high < 0
    assert all(c.low < 0 < c.high for c in none.values())
    assert planted["below"].pairs == pytest.approx(decoyed(1.0, seed=2).windows, rel=0.1)


def three_judges(seed: int) -> Orders:
    """Two judges of sharpness 1.5 and 1, and one that answers at random."""
    rng = np.random.default_rng(seed)
    theta_N = rng.normal(0.0, 1.5, 60)
    items_W2 = windows(60, 2, 3000, rng)
    judge_W = rng.integers(0, 3, len(items_W2))
    perceived_W2 = np.array([1.5, 1.0, 0.0])[judge_W][:, None] * theta_N[items_W2] + rng.gumbel(size=items_W2.shape)
    return ordered(perceived_W2, items_W2, judge_W)


def test_a_judge_that_answers_at_random_stands_out_unless_judges_are_modelled():
    orders = [three_judges(seed=5)]
    alike, modelled = checked(orders, Layout(60)), checked(orders, Layout(60, 3, 2), prior_sd=2.25)
    assert [j.judge for j in alike.judges] == [j.judge for j in modelled.judges] == [0, 1, 2]
    assert alike.judges[2].z < -4
    assert alike.judges[0].z > 2
    assert all(abs(j.z) < 2 for j in modelled.judges)
    assert modelled.judges[2].expected == pytest.approx(-np.log(2), abs=0.02)
    assert modelled.judges[0].expected > alike.judges[0].expected + 0.05
    together = checked([orders[0]._replace(judge_W=None)], Layout(60))
    assert [j.judge for j in together.judges] == [0]
    assert together.link == alike.link


def test_position_bias_is_detected_unless_it_is_modelled():
    rng = np.random.default_rng(5)
    theta_N = rng.normal(0.0, 1.5, 60)
    items_W2 = windows(60, 2, 3000, rng)
    biased = ordered(theta_N[items_W2] + np.array([0.8, 0.0]) + rng.gumbel(size=items_W2.shape), items_W2, np.zeros(3000, int))
    alike, modelled = (checked([biased], layout).judges[0].places for layout in (Layout(60), Layout(60, 1, 2)))
    assert [p.group for p in alike] == ["1", "2"]
    assert alike[0].low > 0.05
    assert alike[0].residual == pytest.approx(-alike[1].residual)
    assert all(p.low < 0 < p.high for p in modelled)
    assert checked([biased._replace(positions_WK=None)], Layout(60)).judges[0].places == []


def rock_paper_scissors(sharpness: float, prior_sd: float) -> Checks:
    """Three groups of texts, each group beats the next; only texts of different groups meet."""
    rng = np.random.default_rng(6)
    items_W2 = windows(45, 2, 4000, rng)
    items_W2 = items_W2[items_W2[:, 0] % 3 != items_W2[:, 1] % 3]
    beats_W = (items_W2[:, 1] - items_W2[:, 0]) % 3 == 1
    perceived_W2 = np.stack([np.where(beats_W, sharpness, -sharpness), np.zeros(len(items_W2))], axis=1)
    return checked([ordered(perceived_W2 + rng.gumbel(size=items_W2.shape), items_W2)], Layout(45), prior_sd)


def test_cycles_beyond_those_of_the_model_are_detected():
    planted, none = rock_paper_scissors(2.0, 0.3).transitivity, rock_paper_scissors(0.0, 0.1).transitivity
    assert 1000 < planted.triads <= 15**3
    assert planted.observed > 0.5 > 0.3 > planted.high
    assert none.low < none.observed < none.high
    assert none.expected == pytest.approx(0.25, abs=0.02)


def test_a_triad_within_one_window_is_transitive_by_construction_and_not_counted():
    apart = [Orders(np.array([[0, 1], [1, 2], [2, 0]]), np.ones(3))]
    together = [Orders(np.array([[0, 1, 2]]), np.ones(1))]
    filler = luce(60, 2, 40, seed=7)
    filler = filler._replace(items_WK=filler.items_WK + 3)
    in_filler = checked([filler], Layout(63)).transitivity
    others = in_filler.triads if in_filler else 0
    transitivity = checked([*apart, filler], Layout(63)).transitivity
    assert transitivity.triads == others + 1
    assert transitivity.observed * transitivity.triads >= 1
    within = checked([*together, filler], Layout(63)).transitivity
    assert (within.triads if within else 0) == others


def test_a_split_never_separates_presentations_of_one_pair():
    rng = np.random.default_rng(8)
    plain = luce(60, 2, 2000, seed=8)._replace(key_W=rng.integers(2**63, size=2000, dtype=np.uint64), positions_WK=None)
    mirror = plain._replace(items_WK=plain.items_WK[:, ::-1], weight_W=np.zeros(2000), key_W=~plain.key_W)
    held_out, training = split([plain, mirror], 60)
    np.testing.assert_array_equal(held_out[0].items_WK, held_out[1].items_WK[:, ::-1])
    sides = [{frozenset(pair) for o in side for pair in o.items_WK.tolist()} for side in (held_out, training)]
    assert not sides[0] & sides[1]
    assert len(held_out[0].items_WK) == pytest.approx(400, rel=0.2)
    alone, both = checked([plain], Layout(60)), checked([plain, mirror], Layout(60))
    assert alone.windows == both.windows
    assert alone.transitivity == both.transitivity
    for one, other in zip(alone.link, both.link, strict=True):
        assert one.model_dump() == pytest.approx(other.model_dump())
    assert alone.judges[0].z == pytest.approx(both.judges[0].z)


def test_preferences_with_a_probability_are_counted_once_and_as_shares():
    rng = np.random.default_rng(9)
    theta_N = rng.normal(0.0, 1.0, 80)
    items_W2 = windows(80, 2, 3000, rng)
    first_W = 1 / (1 + np.exp(theta_N[items_W2[:, 1]] - theta_N[items_W2[:, 0]]))
    orders = [Orders(items_W2, first_W), Orders(items_W2[:, ::-1], 1 - first_W)]
    checks = checked(orders, Layout(80), prior_sd=1.0)
    assert checks.windows == checks.pairs == pytest.approx(600, rel=0.15)
    assert misses(checks) == 0
    assert all(abs(b.observed - b.predicted) < 0.06 for b in checks.link)
    # Each preference is the model's own probability, so the likelier text is preferred and there are no cycles.
    assert checks.transitivity.observed == 0 < checks.transitivity.low


def test_the_pairs_of_an_order_exclude_ties_at_the_end():
    whole, partial = Orders(np.array([[4, 2, 0, 1]]), np.ones(1)), Orders(np.array([[4, 2, 0, 1]]), np.ones(1), top=1)
    pairs = [pairs_of([o], 5) for o in (whole, partial)]
    both = [set(zip(p.first_E.tolist(), p.second_E.tolist(), strict=True)) for p in pairs]
    assert both[0] == {(4, 2), (4, 0), (4, 1), (2, 0), (2, 1), (0, 1)}
    assert both[1] == {(4, 2), (4, 0), (4, 1)}


def test_checks_are_plain_json_and_equal_for_equal_data():
    orders = [luce(40, 3, 300, seed=10)]
    checks = checked(orders, Layout(40))
    assert Checks.model_validate(json.loads(json.dumps(checks.model_dump(), allow_nan=False))) == checks
    assert checked(orders, Layout(40)) == checks


@pytest.mark.parametrize("num_windows", [0, 1])
def test_too_few_windows_are_no_checks(num_windows):
    checks = checked([Orders(np.tile([0, 1], (num_windows, 1)), np.ones(num_windows))], Layout(3))
    assert checks == Checks(windows=0, pairs=0, link=[], transitivity=None, context=[], judges=[], models=[])
