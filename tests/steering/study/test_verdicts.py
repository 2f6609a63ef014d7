"""Verdicts by intervals: every type, what is undetermined, and what would decide it."""

import numpy as np
import pytest

from valueflow.steering.study.verdicts import Interval, model_regime, needed_queries, side, verdict

REACH = (-8.0, 8.0)


def of(estimate: float, error: float = 0.1) -> Interval:
    return Interval(estimate, error, 3.0, 2.7)


@pytest.mark.parametrize(
    ("plus", "minus", "default", "expected"),
    [
        (3.0, -3.0, 0.0, "bidirectional"),
        (3.0, 0.1, 0.0, "asymmetric"),
        (0.0, -3.0, 0.0, "asymmetric"),
        (0.1, 0.2, 0.0, "hard"),
        (0.1, -3.0, 7.8, "ceiling"),
        (3.0, 0.1, -7.8, "floor"),
        (-3.0, -3.0, 0.0, "reversed"),
        (1.0, -3.0, 0.0, "undetermined"),  # an effect as large as the margin
        (0.1, 0.1, 7.8, "undetermined"),  # cannot move up, does not move down
        (0.1, -3.0, 7.0, "undetermined"),  # perhaps a ceiling
        (float("nan"), -3.0, 0.0, "undetermined"),  # a level that was not run
    ],
)
def test_the_type_of_a_value(plus, minus, default, expected):
    assert verdict(of(plus), of(minus), of(default), 1.0, REACH, 100).type == expected


@pytest.mark.parametrize(
    ("estimate", "expected"), [(1.2, "undetermined"), (1.31, "moved"), (-1.31, "reversed"), (0.72, "still")]
)
def test_a_side_needs_its_whole_interval_on_one_side_of_the_margin(estimate, expected):
    assert side(of(estimate), 1.0) == expected


def test_still_is_equivalence_and_not_a_wide_interval_around_zero():
    assert side(of(0.0, error=0.5), 1.0) == "undetermined"


@pytest.mark.parametrize("estimate", [0.0, 2.0])
def test_the_needed_queries_shrink_the_interval_to_the_distance_from_the_margin(estimate):
    effect = of(estimate, error=0.4)
    needed = needed_queries(effect, 1.0, 100)
    critical = effect.critical if estimate > 1 else effect.critical_90
    error = 0.4 * np.sqrt(100 / needed)
    assert (critical + 1.2816) * error == pytest.approx(1.0, abs=0.01)


def test_no_number_of_queries_tells_an_effect_that_equals_the_margin():
    assert needed_queries(of(1.0), 1.0, 100) is None
    assert verdict(of(1.0), of(-3.0), of(0.0), 1.0, REACH, 100).needed is None


def test_a_model_has_a_regime_only_if_its_interval_lies_in_one_range():
    draws_B = np.linspace(0.3, 0.45, 1000)
    inside = model_regime(0.37, draws_B, [0.2, 0.5], ["low", "middle", "high"])
    assert inside.label == "middle"
    assert inside.probabilities == {"low": 0, "middle": 1, "high": 0}
    across = model_regime(0.37, draws_B, [0.4], ["low", "high"])
    assert across.label == "undetermined"
    assert across.probabilities["low"] == pytest.approx(2 / 3, abs=0.01)
