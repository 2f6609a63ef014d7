"""The circle of Schwartz's values: their order, and the sinusoid that a profile of one motive follows over it.

The theory puts compatible values beside and conflicting ones opposite each other. So the centred profile of a coherent unit is
a wave of one period: c(angle) = amplitude cos(angle - peak). How well it fits (R²) checks the profile against the theory.

Shapes: V values.
"""

from typing import NamedTuple

import numpy as np

from valueflow.records import ValueId

# Schwartz et al. 2012: openness to change, self-enhancement, conservation, self-transcendence; face and humility between the
# sectors that they share, hedonism between openness and self-enhancement.
CIRCLE: tuple[ValueId, ...] = tuple(
    ValueId.of("svt", node)
    for node in (
        "self-direction", "stimulation", "hedonism", "achievement", "power", "face", "security", "tradition", "conformity",
        "humility", "benevolence", "universalism",
    )
)  # fmt: skip
SECTORS: dict[str, tuple[int, int]] = {  # first and last place on the circle
    "openness to change": (0, 2), "self-enhancement": (2, 5), "conservation": (5, 9), "self-transcendence": (9, 11),
}  # fmt: skip
MIN_PLACES = 6  # values with a number from which the wave, with three parameters, is fitted


class Wave(NamedTuple):
    """The sinusoid of a centred profile.

    Attributes:
        amplitude: in standardized units.
        peak: degrees from the first value of the circle, 0 to 360.
        peak_error: standard error, degrees; nan without standard errors of the profile.
        nearest: the value nearest to the peak.
        r2: share of the variance over the values that the wave explains.
        num_values: values with a number.
    """

    amplitude: float
    peak: float
    peak_error: float
    nearest: ValueId
    r2: float
    num_values: int


def fit_wave(centred: dict[ValueId, float], errors: dict[ValueId, float] | None = None) -> Wave | None:
    """Return the wave of a centred profile by least squares; None with fewer than 6 values of the circle, or no variance.

    Args:
        centred: by value; values off the circle and nan are ignored.
        errors: standard errors by value, taken as independent, for the error of the peak.
    """
    places = np.array([i for i, value in enumerate(CIRCLE) if np.isfinite(centred.get(value, np.nan))])
    if len(places) < MIN_PLACES:
        return None
    y_V = np.array([centred[CIRCLE[i]] for i in places])
    angle_V = 2 * np.pi * places / len(CIRCLE)
    design_V3 = np.stack([np.cos(angle_V), np.sin(angle_V), np.ones(len(places))], 1)
    solution_3V = np.linalg.pinv(design_V3)
    a, b, _ = solution_3V @ y_V
    total = float(((y_V - y_V.mean()) ** 2).sum())
    amplitude = float(np.hypot(a, b))
    if not total or not amplitude:
        return None
    residual = float(((y_V - design_V3 @ solution_3V @ y_V) ** 2).sum())
    peak = float(np.degrees(np.arctan2(b, a))) % 360
    error_V = np.array([(errors or {}).get(CIRCLE[i], np.nan) for i in places])
    gradient_V = (a * solution_3V[1] - b * solution_3V[0]) / amplitude**2
    peak_error = float(np.degrees(np.sqrt(((gradient_V * error_V) ** 2).sum())))
    nearest = CIRCLE[round(peak / 360 * len(CIRCLE)) % len(CIRCLE)]
    return Wave(amplitude, peak, peak_error, nearest, 1 - residual / total, len(places))
