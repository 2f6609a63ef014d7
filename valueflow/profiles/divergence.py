"""How units differ: the difference of two profiles by value with standard errors and Holm's correction, and one number for all.

What units share cancels in a difference: the error of the zero. An error of the slope multiplies every difference and stays.
Units of common threads depend on each other: models that answered the same queries. Where the influence of the threads is
known, they are compared thread by thread, for all pairs and values together (`simultaneous`); else as independent units, with
standard errors that are then too large, never too small by much.

Shapes: P pairs, V values, Q threads.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import t

from valueflow.numerics.p_values import holm
from valueflow.profiles.simultaneous import MaxT


class Divergence(NamedTuple):
    """Differences of P pairs of profiles, first less second; nan where either is missing.

    Attributes:
        difference_PV: points.
        standard_error_PV: points.
        low_PV: lower end of the simultaneous 95 % interval: Bonferroni over the values of a pair; by common threads over all
            pairs and values.
        high_PV: upper end.
        p_PV: two-sided, of Welch's t test; by common threads of the paired t test.
        adjusted_PV: the same, corrected over all pairs and values: Holm; by common threads max-T.
        distance_P: root mean square of the standardized difference, freed of the part that errors add; 0 at least.
        distance_error_P: its standard error by the delta method; nan where the distance is 0.
    """

    difference_PV: np.ndarray
    standard_error_PV: np.ndarray
    low_PV: np.ndarray
    high_PV: np.ndarray
    p_PV: np.ndarray
    adjusted_PV: np.ndarray
    distance_P: np.ndarray
    distance_error_P: np.ndarray


class Side(NamedTuple):
    """One side of the pairs.

    Attributes:
        mean_PV: means.
        standard_error_PV: of the means, from the sample.
        clusters_PV: number of clusters of each mean.
        influence_QPV: of the threads on the means, 0 where a mean does not rest on a thread; None where units share no threads.
    """

    mean_PV: np.ndarray
    standard_error_PV: np.ndarray
    clusters_PV: np.ndarray
    influence_QPV: np.ndarray | None = None


def diverge(
    first: Side, second: Side, scale_V: np.ndarray, relative_slope_error_V: np.ndarray, seed: int = 0
) -> Divergence:  # fmt: skip
    """Return the differences of pairs of units.

    Args:
        first: of each pair.
        second: of each pair.
        scale_V: standard deviation of the value in the corpus, for the distance.
        relative_slope_error_V: standard error of the judge's slope relative to the slope.
        seed: of the draws of common threads.
    """
    difference_PV = first.mean_PV - second.mean_PV
    shared = None
    if first.influence_QPV is not None and second.influence_QPV is not None:
        shared = _paired(first, second, first.influence_QPV, second.influence_QPV)
    sample_PV, df_PV = shared or _welch(first, second)
    variance_PV = sample_PV + (relative_slope_error_V * difference_PV) ** 2
    error_PV = np.sqrt(variance_PV)
    ratio_PV = np.divide(difference_PV, error_PV, out=np.zeros_like(error_PV), where=np.nan_to_num(error_PV) > 0)
    p_PV = np.where(np.isfinite(difference_PV), 2 * t.sf(np.abs(ratio_PV), df_PV), np.nan)
    number_P1 = np.maximum(np.isfinite(difference_PV).sum(1, keepdims=True), 1)
    if first.influence_QPV is None or second.influence_QPV is None:
        level_P1, adjusted_PV = 0.05 / number_P1, holm(p_PV.ravel()).reshape(p_PV.shape)
    else:
        influence_QPV = first.influence_QPV - second.influence_QPV
        largest = MaxT(np.where(np.isfinite(difference_PV), influence_QPV, 0.0), seed)
        level_P1, adjusted_PV = np.full(number_P1.shape, largest.level()), largest.adjusted(p_PV)
    half_PV = t.ppf(1 - level_P1 / 2, df_PV) * error_PV
    square_PV = (difference_PV**2 - sample_PV) / scale_V**2
    distance_P = np.sqrt(np.maximum(np.nansum(square_PV, 1) / number_P1[:, 0], 0))
    noise_PV = (4 * np.maximum(difference_PV**2 - sample_PV, 0) * sample_PV + 2 * sample_PV**2) / scale_V**4
    square_error_P = np.sqrt(np.nansum(noise_PV, 1)) / number_P1[:, 0]
    distance_error_P = np.divide(square_error_P, 2 * distance_P, out=np.full_like(distance_P, np.nan), where=distance_P > 0)
    distance_P = np.where(np.isfinite(difference_PV).any(1), distance_P, np.nan)
    return Divergence(
        difference_PV, error_PV, difference_PV - half_PV, difference_PV + half_PV, p_PV, adjusted_PV, distance_P,
        distance_error_P,
    )  # fmt: skip


def _welch(first: Side, second: Side) -> tuple[np.ndarray, np.ndarray]:
    """Variance and degrees of freedom of differences of independent means (Satterthwaite)."""
    parts = [side.standard_error_PV**2 for side in (first, second)]
    freedom = [np.maximum(side.clusters_PV - 1, 1) for side in (first, second)]
    sample_PV = parts[0] + parts[1]
    below_PV = sum(part**2 / df for part, df in zip(parts, freedom, strict=True))
    df_PV = np.divide(sample_PV**2, below_PV, out=np.ones_like(sample_PV), where=np.nan_to_num(below_PV) > 0)
    return sample_PV, np.maximum(df_PV, 1.0)


def _paired(first: Side, second: Side, of_first_QPV: np.ndarray, of_second_QPV: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of means over common threads: those that both means rest on count once, by their difference."""
    square_QPV = (of_first_QPV - of_second_QPV) ** 2
    in_first, in_second = of_first_QPV != 0, of_second_QPV != 0
    numbers = [np.maximum(side.clusters_PV, 2.0) for side in (first, second)]
    sample_PV, below_PV = square_QPV.sum(0), np.zeros(square_QPV.shape[1:])
    # Each mean costs one degree of freedom, spread over its threads.
    for group, number_PV in (
        (in_first & in_second, np.minimum(*numbers)), (in_first & ~in_second, numbers[0]), (~in_first & in_second, numbers[1])
    ):  # fmt: skip
        freedom_PV = group.sum(0) * (1 - 1 / number_PV)
        part_PV = (square_QPV * group).sum(0)
        below_PV += np.divide(part_PV**2, freedom_PV, out=np.zeros_like(part_PV), where=freedom_PV > 0)
    df_PV = np.divide(sample_PV**2, below_PV, out=np.ones_like(sample_PV), where=below_PV > 0)
    return sample_PV, np.maximum(df_PV, 1.0)
