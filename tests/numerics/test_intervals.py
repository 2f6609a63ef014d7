"""Wilson's interval against SciPy's."""

import pytest
from scipy.stats import binomtest, norm

from valueflow.numerics.intervals import Z95, wilson_interval


def test_z95_is_the_normal_quantile_to_seven_digits():
    assert pytest.approx(norm.ppf(0.975), abs=5e-7) == Z95


@pytest.mark.parametrize(("count", "total"), [(0, 7), (1, 7), (7, 7), (252, 360), (1, 100_000)])
def test_wilson_is_that_of_scipy(count, total):
    expected = binomtest(count, total).proportion_ci(method="wilson")
    assert wilson_interval(count / total, total) == pytest.approx((expected.low, expected.high), abs=1e-7)


def test_fewer_observations_and_larger_z_widen_the_interval():
    def width(count: float, z: float = Z95) -> float:
        low, high = wilson_interval(0.3, count, z)
        return high - low

    assert width(40.5) > width(41) > width(41, 1.0)
