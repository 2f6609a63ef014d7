"""Simulated models and judges with planted truths: what the study claims, 200 runs each (figures: benchmarks.steerability)."""

import numpy as np
import pytest

from benchmarks import steerability
from benchmarks.steering_worlds import PERSONA_SHIFT, planted


def test_a_study_of_planted_types_gets_them_right():
    names = ["hard", "asymmetric", "bidirectional", "ceiling"]
    outcome = steerability.study(*planted(names), 600, np.random.default_rng(1))
    assert outcome.types == names
    assert outcome.covered


def test_persona_is_no_effect_of_a_value():
    figures = steerability.persona(200, num_runs=4)
    assert abs(figures.neutral) < 0.3
    assert figures.bare == pytest.approx(PERSONA_SHIFT, abs=0.3)


@pytest.mark.statistics
def test_types_are_right_at_the_planned_size_and_undetermined_below_it():
    planned = steerability.planned_queries()
    at_plan = steerability.types(planned)
    assert 0.93 <= at_plan.coverage <= 0.97
    assert min(at_plan.right.values()) >= 0.9
    smaller = [steerability.types(planned // part, num_runs=40).undetermined for part in (2, 4)]
    assert at_plan.undetermined < smaller[0] < smaller[1]


@pytest.mark.statistics
def test_false_claims_are_rare_in_whole_studies():
    figures = steerability.false_claims(steerability.planned_queries())
    assert figures.steerable <= 0.05
    assert figures.hard <= 0.05


@pytest.mark.statistics
def test_the_neutral_persona_removes_the_shift_of_any_persona():
    figures = steerability.persona(150)
    assert abs(figures.neutral) < 0.05
    assert figures.bare == pytest.approx(PERSONA_SHIFT, abs=0.05)


@pytest.mark.statistics
def test_bounds_hold_the_truth_that_refusals_hide():
    figures = steerability.refusals()
    assert min(figures.as_scored, figures.answered_only) > 0.3  # both readings are biased
    assert min(figures.manski, figures.lee) >= 0.95
    assert figures.depends >= 0.95


@pytest.mark.timeout(600)
@pytest.mark.statistics
def test_intervals_include_the_error_of_the_anchors_without_a_call():
    figures = steerability.anchor_error()
    assert figures.naive < 0.9
    assert 0.93 <= figures.imputed <= 0.97
    assert figures.calls_to_redraw == 0 < figures.calls_to_rank


@pytest.mark.statistics
def test_compositions_are_named_and_one_order_misleads():
    figures = steerability.composition()
    assert min(figures.right.values()) >= 0.9
    assert figures.fixed_order_dominance >= 0.9
    assert figures.ceiling_sub_additive <= 0.05


@pytest.mark.statistics
def test_side_effects_are_recovered_with_a_biased_cheap_judge():
    figures = steerability.side_effect_figures()
    assert 0.93 <= figures.coverage <= 0.97
    assert figures.cheap_coverage < 0.5  # the control: the cheap judge as it is
    assert figures.width < figures.subset_width
