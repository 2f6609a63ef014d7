"""Confidence intervals."""

import math

# Quantile 0.975 of the standard normal distribution. Saved intervals use these seven digits; more would change their values.
Z95 = 1.959964


def wilson_interval(share: float, count: float, z: float = Z95) -> tuple[float, float]:
    """Return the bounds of the score interval of a binomial share (Wilson 1927); both are in [0, 1] up to rounding.

    Args:
        share: observed share.
        count: number of independent observations, above 0; for dependent ones the effective number, which need not be whole.
        z: half width in standard errors; the default gives a 95 % interval.
    """
    z2 = z**2 / count
    middle, half = share + z2 / 2, math.sqrt(z2 * (share * (1 - share) + z2 / 4))
    return float((middle - half) / (1 + z2)), float((middle + half) / (1 + z2))
