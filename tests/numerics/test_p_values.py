"""Corrections of p values, by hand and against scipy."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from valueflow.numerics.p_values import benjamini_hochberg, holm


def test_holm_by_hand():
    assert holm(np.array([0.01, np.nan, 0.04, 0.03])) == pytest.approx([0.03, np.nan, 0.06, 0.06], nan_ok=True)
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_holm_multiplies_by_the_number_of_hypotheses_left():
    adjusted = holm(np.array([0.01, 0.04, np.nan, 0.03, 0.005]))
    assert adjusted[[4, 0, 3, 1]] == pytest.approx([0.02, 0.03, 0.06, 0.06])
    assert np.isnan(adjusted[2])


def test_false_discovery_rate_is_that_of_scipy():
    p_J = np.random.default_rng(4).uniform(size=20) ** 2
    assert benjamini_hochberg(p_J) == pytest.approx(false_discovery_control(p_J))


def test_false_discovery_rate_by_hand():
    adjusted = benjamini_hochberg(np.array([0.01, np.nan, 0.04, 0.03]))
    assert adjusted == pytest.approx([0.03, np.nan, 0.04, 0.04], nan_ok=True)
