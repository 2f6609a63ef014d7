"""Numbers that may be missing."""

import json

import numpy as np
import pytest

from valueflow.numerics.missing import finite_or_none


@pytest.mark.parametrize(("x", "expected"), [(np.float32(0.5), 0.5), (np.array(2), 2.0), (np.nan, None), (-np.inf, None)])
def test_a_finite_number_is_a_python_float_and_others_are_none(x, expected):
    assert finite_or_none(x) == expected
    assert json.dumps(finite_or_none(x)) == json.dumps(expected)
