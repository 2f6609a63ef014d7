"""Maps between theta (nats, arbitrary zero, one judge's scale) and intensity in [-10, 10], which has a meaningful zero.

Shapes: all arrays are one-dimensional, one entry a text.
"""

from typing import Literal

import numpy as np
from pydantic import Field, FiniteFloat, model_validator

from valueflow.config import Config
from valueflow.errors import InputError
from valueflow.records import LIMIT

NO_NEUTRAL = (
    "calibration mode 'neutral' needs neutral texts in the pool: ingest a corpus of mundane texts, name its source in "
    "candidates.neutral_sources, set candidates.num_neutral above 0 and let its licence pass candidates.license_filter"
)


class CalibrateConfig(Config):
    """How zero and the unit of intensity are set."""

    mode: Literal["neutral", "human", "rated"] = "neutral"
    extreme_quantile: float = Field(0.99, gt=0.5, le=1, description="neutral: this quantile of |theta - zero| is intensity 10")
    ratings: str = Field("", description="human, rated: CSV with columns theory, value, text, rating in [-10, 10]")

    @model_validator(mode="after")
    def _has_ratings(self) -> "CalibrateConfig":
        if (self.mode == "neutral") == bool(self.ratings):
            raise ValueError(
                f"ratings ({self.ratings!r}) must be set for mode human or rated and for no other; mode is {self.mode!r}"
            )
        return self


class Calibration(Config):
    """A strictly increasing piecewise-linear map of one value; linear beyond the outer knots, so it has an inverse."""

    mode: Literal["neutral", "human", "rated", "imported"]
    theta: list[FiniteFloat] = Field(min_length=2)
    intensity: list[FiniteFloat] = Field(min_length=2)

    @model_validator(mode="after")
    def _increasing(self) -> "Calibration":
        if len(self.theta) != len(self.intensity):
            raise ValueError(f"{len(self.theta)} theta knots but {len(self.intensity)} intensity knots")
        if not (np.all(np.diff(self.theta) > 0) and np.all(np.diff(self.intensity) > 0)):
            raise ValueError("the knots of a calibration must increase strictly in theta and intensity")
        return self

    @classmethod
    def identity(cls) -> "Calibration":
        """Return the map of imported scales, whose theta is the intensity."""
        return cls(mode="imported", theta=[-LIMIT, LIMIT], intensity=[-LIMIT, LIMIT])

    def unclipped(self, theta: np.ndarray) -> np.ndarray:
        """Return intensity before clipping to [-10, 10]."""
        return _interpolate(theta, np.array(self.theta), np.array(self.intensity))

    def to_intensity(self, theta: np.ndarray) -> np.ndarray:
        """Return intensity, clipped to [-10, 10]."""
        return np.clip(self.unclipped(theta), -LIMIT, LIMIT)

    def to_theta(self, intensity: np.ndarray) -> np.ndarray:
        """Return theta: the inverse of `unclipped`."""
        return _interpolate(intensity, np.array(self.intensity), np.array(self.theta))


def neutral(theta: np.ndarray, is_neutral: np.ndarray, extreme_quantile: float) -> Calibration:
    """Return the linear map with zero at the median theta of neutral texts.

    Intensity 10 is the `extreme_quantile` of |theta - zero| over all texts, so single outliers do not set the unit.

    Raises:
        InputError: no neutral text, or no spread.
    """
    if not is_neutral.any():
        raise InputError(NO_NEUTRAL)
    zero = float(np.median(theta[is_neutral]))
    extreme = float(np.quantile(np.abs(theta - zero), extreme_quantile))
    if extreme <= 0:
        raise InputError("all texts have the same theta; the judge did not separate them")
    return Calibration(mode="neutral", theta=[zero - extreme, zero + extreme], intensity=[-LIMIT, LIMIT])


def isotonic(theta: np.ndarray, rating: np.ndarray, mode: Literal["human", "rated"]) -> Calibration:
    """Return the least-squares increasing map from theta to ratings (pool adjacent violators; Barlow et al. 1972).

    Raises:
        InputError: the ratings increase with theta nowhere, so there is no scale.
    """
    from scipy.optimize import isotonic_regression  # here, since its import takes each worker half a second of a core

    distinct, group, size = np.unique(theta, return_inverse=True, return_counts=True)
    pooled = isotonic_regression(np.bincount(group, rating) / size, weights=size).x
    steps = [np.flatnonzero(pooled == level) for level in np.unique(pooled)]
    if len(steps) < 2:
        raise InputError(
            f"calibration mode {mode!r}: the {len(theta)} ratings do not increase with theta; is this judge valid?"
        )
    knots = [float(np.average(distinct[step], weights=size[step])) for step in steps]
    return Calibration(mode=mode, theta=knots, intensity=[float(pooled[step[0]]) for step in steps])


def _interpolate(x: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    slope = (ys[-1] - ys[0]) / (xs[-1] - xs[0])
    x = np.asarray(x, float)
    inside = np.interp(x, xs, ys)
    return inside + slope * (np.minimum(x - xs[0], 0.0) + np.maximum(x - xs[-1], 0.0))
