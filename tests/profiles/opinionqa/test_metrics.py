"""Measures by hand, and planted models: one that knows only the question, one that uses the profile."""

import numpy as np
import pytest
from profiles.opinion_world import SCALE, softmax, world

from valueflow.profiles.opinionqa.items import Item
from valueflow.profiles.opinionqa.metrics import distance, jsd, measures, paired, reliability_curve


def test_a_model_that_knows_only_the_question_earns_no_contrast():
    items, _, _, base_QO, battery_of = world()
    rng = np.random.default_rng(1)
    noisy = [softmax(base_QO[int(i.question_id[1:])] + 0.3 * rng.normal(size=4)) for i in items]
    without = [softmax(base_QO[int(i.question_id[1:])]) for i in items]
    found = measures(items, noisy, without, battery_of)
    assert found.accuracy.estimate > 0.6  # accuracy says nothing about the use of the profile
    assert found.contrast.low < 0 < found.contrast.high
    assert abs(found.contrast.estimate) < 0.1


def test_a_model_that_uses_the_profile_is_recovered():
    items, value_G, pole_Q, base_QO, battery_of = world()
    steps = np.array([1.5, 0.5, -0.5, -1.5])
    told = []
    for i in items:
        q, g = int(i.question_id[1:]), int(i.group)
        told.append(softmax(base_QO[q] + 0.5 * pole_Q[q] * value_G[g] * steps))
    without = [softmax(base_QO[int(i.question_id[1:])]) for i in items]
    found = measures(items, told, without, battery_of)
    assert found.contrast.low > 0.7
    assert found.contrast.estimate > 0.8
    shuffled = [told[int(i.question_id[1:]) * 6 + (int(i.group) + 1) % 6] for i in items]
    other = measures(items, shuffled, without, battery_of)
    assert other.contrast.estimate < 0.5 < found.contrast.estimate


def test_an_arm_that_says_nothing_of_the_group_has_no_contrast_at_all():
    items, _, _, base_QO, battery_of = world(num_questions=10)
    same = [softmax(base_QO[int(i.question_id[1:])]) for i in items]
    assert measures(items, same, same, battery_of).contrast == (0.0, 0.0, 0.0)


def test_gold_itself_reaches_every_ceiling():
    items, *_, battery_of = world(num_questions=12)
    gold = [np.array(i.gold) for i in items]
    found = measures(items, gold, [np.full(4, 0.25)] * len(items), battery_of)
    assert found.accuracy.estimate == 1
    assert found.agreement.estimate == pytest.approx(found.ceiling)
    assert found.jsd.estimate == pytest.approx(0)
    assert found.distance == pytest.approx(0)
    assert found.brier == pytest.approx(0)
    assert (found.macro, found.unread) == (1, 0)


def test_no_prediction_is_wrong_and_counted():
    items, *_, battery_of = world(num_questions=4)
    gold: list = [np.array(i.gold) for i in items]
    gold[0] = gold[1] = None
    found = measures(items, gold, [np.full(4, 0.25)] * len(items), battery_of)
    assert found.unread == pytest.approx(2 / len(items))
    assert found.accuracy.estimate == pytest.approx(1 - 2 / len(items))


def test_divergence_and_distance_by_hand():
    assert jsd(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(1.0)
    ordered = Item("i", "q", "w", SCALE, "A", "g", (1.0, 0.0, 0.0, 0.0))
    assert distance(np.array([0.0, 0.0, 0.0, 1.0]), ordered) == pytest.approx(1.0)
    assert distance(np.array([0.0, 1.0, 0.0, 0.0]), ordered) == pytest.approx(1 / 3)
    nominal = ordered._replace(options=("Red", "Green", "Blue", "Grey"))
    assert distance(np.array([0.0, 1.0, 0.0, 0.0]), nominal) == pytest.approx(1.0)


def test_intervals_are_wider_where_batteries_are_larger():
    rng = np.random.default_rng(0)
    battery_N = np.repeat(np.arange(20), 10)
    x_N = np.repeat(rng.random(20) < 0.5, 10).astype(float)
    items = [Item(str(n), f"q{n}", "w", SCALE, "A", "g", (1.0, 0, 0, 0)) for n in range(200)]
    together = paired(x_N, np.zeros(200), items, {f"q{n}": str(b) for n, b in enumerate(battery_N)})
    apart = paired(x_N, np.zeros(200), items, {f"q{n}": str(n) for n in range(200)})
    assert together.high - together.low > 2 * (apart.high - apart.low)
    assert together.p > 0
    assert paired(np.ones(200), np.zeros(200), items, {f"q{n}": str(n) for n in range(200)}).p < 0.01


def test_the_curve_of_calibrated_probabilities_is_the_diagonal():
    items, *_ = world(num_questions=60)
    for predicted, share, _ in reliability_curve(items, [np.array(i.gold) for i in items]):
        assert predicted == pytest.approx(share)
