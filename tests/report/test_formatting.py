"""Numbers on the pages: a typographic minus, no sign on what rounds to zero, a dash where there is none."""

import math

import pytest

from valueflow.report.formatting import decimal, interval, nats, percent, signed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (decimal(1234.567), "1,234.57"),
        (decimal(-0.5, 1), "−0.5"),
        (decimal(-0.001), "0.00"),
        (decimal(None), "–"),
        (decimal(math.nan), "–"),
        (signed(0.25, 2), "+0.25"),
        (signed(-3.14), "−3.1"),
        (signed(0.04), "0.0"),
        (signed(-0.04), "0.0"),
        (signed(0.05), "+0.1"),
        (percent(0.375), "37.5 %"),
        (percent(0.375, 0), "38 %"),
        (percent(None), "–"),
        (interval(-1, 2.5, 1), "−1.0 to 2.5"),
        (interval(-1, 2.5, 1, with_sign=True), "−1.0 to +2.5"),
        (interval(None, 1.0), ""),
        (interval(math.nan, math.nan), ""),
        (nats(0.00412), "0.0041"),
        (nats(-0.00412, with_sign=True), "−0.0041"),
    ],
)
def test_numbers(text, expected):
    assert text == expected
