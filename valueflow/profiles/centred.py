"""Centred profiles: the relative importance of values within a unit, as social science compares it.

The scales of the values have different units (docs/method.md, 9). So a mean is first divided by the standard deviation of
people's intensities of the value over the texts of the VIDB version, its corpus; the zero stays where it is. The mean of these
numbers over the values of a theory is MRAT, the mean rating; centred is the number less MRAT. MRAT can mean something itself,
so it is reported and not thrown away.

Shapes: C clusters, U units, V values.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import t

MIN_SHARE = 0.5  # of a theory's values that a unit must have: MRATs over other sets of values are not comparable


class Centred(NamedTuple):
    """Standardized and centred profiles; nan where a value or too many of its theory are missing.

    Attributes:
        standardized_UV: mean divided by the corpus standard deviation.
        mrat_UV: mean of these over the unit's values of the theory.
        centred_UV: standardized less MRAT.
        low_UV: lower end of the 95 % interval of centred.
        high_UV: upper end.
        standard_error_UV: of centred.
    """

    standardized_UV: np.ndarray
    mrat_UV: np.ndarray
    centred_UV: np.ndarray
    low_UV: np.ndarray
    high_UV: np.ndarray
    standard_error_UV: np.ndarray


def centre(
    mean_UV: np.ndarray, shared_error_UV: np.ndarray, influence_CV: np.ndarray, unit_C: np.ndarray,
    clusters_UV: np.ndarray, scale_V: np.ndarray, theory_V: list[str],
) -> Centred:  # fmt: skip
    """Return centred profiles with intervals; the values of a unit are correlated, since the same texts determine them.

    Args:
        mean_UV: nan where missing.
        shared_error_UV: standard errors beyond the sample, independent over values.
        influence_CV: of the clusters on the means.
        unit_C: the unit of each cluster.
        clusters_UV: number of clusters of each mean.
        scale_V: standard deviation of the value in the corpus.
        theory_V: theory of each value.
    """
    standardized_UV = mean_UV / scale_V
    mrat_UV, variance_UV = np.full_like(mean_UV, np.nan), np.full_like(mean_UV, np.nan)
    for theory in dict.fromkeys(theory_V):
        of_V = np.flatnonzero([other == theory for other in theory_V])
        z_UV, present_UV = standardized_UV[:, of_V], np.isfinite(standardized_UV[:, of_V])
        number_U1 = present_UV.sum(1, keepdims=True)
        enough_U = number_U1[:, 0] >= max(2, MIN_SHARE * len(of_V))
        number_U1 = np.maximum(number_U1, 1)
        mean_U1 = np.where(present_UV, z_UV, 0).sum(1, keepdims=True) / number_U1
        mrat_UV[:, of_V] = np.where(enough_U[:, None], mean_U1, np.nan)
        own_CV = np.where(present_UV[unit_C], influence_CV[:, of_V] / scale_V[of_V], 0)
        own_CV -= own_CV.sum(1, keepdims=True) / number_U1[unit_C]
        sample_UV = np.zeros_like(z_UV)
        np.add.at(sample_UV, unit_C, own_CV**2)
        shared_UV = np.where(present_UV, np.nan_to_num(shared_error_UV[:, of_V]) / scale_V[of_V], 0) ** 2
        others_U1 = shared_UV.sum(1, keepdims=True) / number_U1**2
        variance_UV[:, of_V] = sample_UV + shared_UV * (1 - 2 / number_U1) + others_U1
    centred_UV = standardized_UV - mrat_UV
    error_UV = np.where(np.isfinite(centred_UV), np.sqrt(np.maximum(variance_UV, 0)), np.nan)
    half_UV = t.ppf(0.975, np.maximum(clusters_UV - 1, 1)) * error_UV
    return Centred(standardized_UV, mrat_UV, centred_UV, centred_UV - half_UV, centred_UV + half_UV, error_UV)
