"""The plan: counts by hand, and sizes that agree with what intervals do."""

import numpy as np
import pytest

from valueflow.steering.study.planner import PlanConfig, plan, plan_table


def test_the_papers_study_is_counted():
    config = PlanConfig(models=10, regimes=2, ranked_share=0.1, windows=5, price_in=0.1, price_out=0.4, judge_price=0.2)
    planned = plan(config)
    assert planned.generations == 10 * (2 * 32 * 4 + 2) * 500
    assert planned.target_windows == 5 * 500 * 10 * (2 * 32 * 4 + 2 * 32)
    assert planned.side_windows == 250 * 10 * 2 * 32 * 4 * 31
    judge = planned.judge_tokens * 0.2
    assert planned.cost == pytest.approx((planned.generations * (350 * 0.1 + 150 * 0.4) + judge) / 1e6)


def test_more_queries_find_smaller_effects_and_more_values_need_more():
    small, large = plan(PlanConfig(queries=100)), plan(PlanConfig(queries=400))
    assert small.half_width / small.critical == pytest.approx(2 * large.half_width / large.critical)
    assert plan(PlanConfig(values=32)).still_queries[1.0] > plan(PlanConfig(values=2)).still_queries[1.0]
    assert plan(PlanConfig()).still_queries[0.5] == pytest.approx(4 * plan(PlanConfig()).still_queries[1.0], rel=0.03)


def test_one_contrast_needs_the_queries_of_the_textbook():
    """Two one-sided tests of one effect at power 0.9, spread 3.5, margin 1: (2 * 1.645)² * 3.5² = 133 uncorrected."""
    planned = plan(PlanConfig(values=1, sd=3.5)).still_queries[1.0]
    corrected = ((2.394 + 1.96) * 3.5) ** 2  # 6 contrasts of a value, both levels: 0.05 / 6 and 0.1 / 4
    assert planned == pytest.approx(corrected, rel=0.03)
    assert planned > 133


def test_the_table_names_what_it_counts():
    text = plan_table(PlanConfig(), plan(PlanConfig()))
    assert "65,000" in text  # (32 * 4 + 2) * 500 responses
    assert "no price is set" in text
    assert np.isfinite(plan(PlanConfig()).detectable)
