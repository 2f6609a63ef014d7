"""Profiles in words."""

import numpy as np

from valueflow.api.responses import Band

# Upper ends of the bands of a profile, points of intensity.
BANDS: tuple[tuple[float, Band], ...] = (
    (-6.0, "very low"),
    (-2.0, "low"),
    (2.0, "neutral"),
    (6.0, "high"),
    (np.inf, "very high"),
)


def band(intensity: float) -> Band:
    """Return the band of a mean intensity."""
    return next(name for end, name in BANDS if intensity <= end)
