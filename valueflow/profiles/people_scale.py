"""From a judge's mean over texts to people's mean: the content error of single texts averages out, what they share stays.

A text's score is moved towards the middle, since the judge sees people's intensity only in part. A mean over texts needs less
of that move: with S the spread of people's intensities and tau² the variance of an unmoved intensity around people's, a mean
over n texts is moved by S² / (S² + tau² / n).

The variance between scored texts contains the judge's error of each already; it must not be added a second time. What remains
is the error that the texts share: of the zero, of the slope and of the unit.

Shapes: T texts, U units (persons, groups, models), V values.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from valueflow.numerics.intervals import Z95
from valueflow.ranking.content_error import ContentError

MIN_AGREEMENT = 0.01  # of a judge with people, squared correlation: below it a mean over texts tells nothing either


class PeopleScale(NamedTuple):
    """The content errors of a judge by value, as arrays (V,); see `ContentError` for their meaning."""

    slope_V: np.ndarray
    middle_V: np.ndarray
    center_V: np.ndarray
    spread_V: np.ndarray
    agreement_V: np.ndarray
    content_variance_V: np.ndarray
    shared_sd_V: np.ndarray
    slope_sd_V: np.ndarray
    factor_V: np.ndarray

    @classmethod
    def of(cls, errors: Sequence[ContentError]) -> "PeopleScale":
        """Return the arrays of the content errors of some values."""
        slope, intercept, center, spread, sd, shared, slope_sd, factor = (
            np.array([getattr(error, name) for error in errors], float)
            for name in ("slope", "intercept", "center", "spread", "sd", "shared_sd", "slope_sd", "factor")
        )
        share = np.divide(sd, spread, out=np.zeros_like(sd), where=spread > 0)
        agreement = np.where(spread > 0, np.clip(1 - share**2, MIN_AGREEMENT, 1.0), 1.0)
        return cls(slope, intercept + slope * center, center, spread, agreement, sd**2 / agreement, shared, slope_sd, factor)

    def unmoved(self, judge_TV: np.ndarray) -> np.ndarray:
        """Return people's intensity of texts without the move towards the middle: unbiased for the mean of many texts."""
        return self.middle_V + self.slope_V * (judge_TV - self.center_V) / self.agreement_V

    def judge(self, unmoved_UV: np.ndarray) -> np.ndarray:
        """Return the inverse of `unmoved`; the center where the judge has no slope."""
        slope_V = np.where(self.slope_V > 0, self.slope_V, np.inf)
        return self.center_V + (unmoved_UV - self.middle_V) * self.agreement_V / slope_V

    def move(self, size_UV: np.ndarray) -> np.ndarray:
        """Return the factor by which the distance of a mean over so many texts from the middle is multiplied."""
        error_UV = self.content_variance_V / np.maximum(size_UV, 1.0)
        square_V = self.spread_V**2
        return np.divide(square_V, square_V + error_UV, out=np.ones_like(error_UV), where=error_UV > 0)

    def rest(self, unmoved_UV: np.ndarray, move_UV: np.ndarray) -> np.ndarray:
        """Return the standard error of a mean beyond that of the sample: of the move, and what the texts share."""
        distance_UV = self.judge(unmoved_UV) - self.center_V
        shared_UV = self.shared_sd_V**2 + (move_UV / self.agreement_V * self.slope_sd_V * distance_UV) ** 2
        return np.sqrt(((1 - move_UV) * self.spread_V) ** 2 + shared_UV)

    def relative_slope_error(self) -> np.ndarray:
        """Return the relative standard error of the slope, which multiplies every difference of two units (V,)."""
        return np.divide(self.slope_sd_V, self.slope_V, out=np.zeros_like(self.slope_V), where=self.slope_V > 0)


def with_residual(error: ContentError, radius: float, intensity_N: np.ndarray) -> ContentError:
    """Return the content error of mode fast: that of the judge, and what the regression does not see of the judge's intensity.

    A regression predicts the judge's intensity moved towards the middle, like the judge people's; so both errors are of a kind.

    Args:
        error: of the judge.
        radius: half the width of the regression's 95 % interval, points.
        intensity_N: the judge's intensities of the texts that it was fitted on.
    """
    residual = error.slope * radius / Z95
    spread = max(error.spread or float(np.std(intensity_N)), 1.01 * float(np.hypot(error.sd, residual)))
    center = error.center if error.slope_sd or error.shared_sd else float(np.mean(intensity_N))
    source = f"{error.source}; mode fast: a regression that is within {radius:.1f} points of the judge for 95 % of texts"
    return error.model_copy(
        update={"sd": float(np.hypot(error.sd, residual)), "spread": spread, "center": center, "source": source}
    )
