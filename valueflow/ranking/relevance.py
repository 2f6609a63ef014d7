"""People's intensity of a text that may not concern the value: zero, or where the judge's intensity says that it is.

The judge says relevance r from 0 to 1, and may be wrong about it. So with probability

    c = DOUBT + (1 - DOUBT) r

people's intensity has the distribution that it has without a relevance (two halves of a normal distribution, which meet at the
median), and otherwise it is 0. r = 1 changes nothing.

A judge that shares little of its variance with people is believed less, and one that shares none not at all: what says nothing
about intensity says nothing about relevance, and must not make intervals narrow.

A judge whose orders are by relevance times direction has put such a text near zero itself: its intensity is a mean over both
cases, and must not be shrunk a second time. But no mean over both cases is further from zero than 10 c.

Shapes: T texts.
"""

import numpy as np
from scipy.special import ndtr, ndtri

from valueflow.records import LIMIT

DOUBT = 0.1  # probability that what a judge says about relevance tells nothing
TRUSTED = 0.25  # share of its variance with people from which on a judge is believed so far; below it, in proportion less
TAILS = (0.025, 0.975)


def concern(relevance_T: np.ndarray, agreement: float = 1.0) -> np.ndarray:
    """Return the probability that people's intensity is where the judge's says; 1 where the relevance is not known (nan).

    Args:
        relevance_T: as the judge says.
        agreement: share of its variance that the judge has in common with people.
    """
    relevance_T = np.asarray(relevance_T, float)
    doubt = DOUBT if agreement >= TRUSTED else 1 - (1 - DOUBT) * agreement / TRUSTED
    return np.where(np.isnan(relevance_T), 1.0, doubt + (1 - doubt) * np.clip(np.nan_to_num(relevance_T), 0.0, 1.0))


def interval(
    mean_T: np.ndarray, sd_below_T: np.ndarray, sd_above_T: np.ndarray, concern_T: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the central 95 % interval of the mixture with zero.

    Args:
        mean_T: of the text if it concerns the value.
        sd_below_T: standard deviation of the half below it.
        sd_above_T: of the half above it.
        concern_T: probability that the text concerns the value.
    """

    def at(level_T: np.ndarray) -> np.ndarray:
        z_T = ndtri(np.clip(level_T, 1e-12, 1 - 1e-12))
        return mean_T + z_T * np.where(z_T < 0, sd_below_T, sd_above_T)

    sd_to_zero_T = np.maximum(np.where(mean_T > 0, sd_below_T, sd_above_T), 1e-12)
    below_zero_T = concern_T * ndtr(-mean_T / sd_to_zero_T)
    ends = []
    for tail in TAILS:
        above_T = at((tail - (1 - concern_T)) / concern_T)
        ends.append(
            np.select([below_zero_T >= tail, below_zero_T + 1 - concern_T >= tail], [at(tail / concern_T), 0.0], above_T)
        )
    return ends[0], ends[1]


def bounded(
    intensity_T: np.ndarray, low_T: np.ndarray, high_T: np.ndarray, relevance_T: np.ndarray, agreement: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return intensity, low and high by a judge whose orders contain relevance; `agreement` as in `concern`.

    The intensity is at most 10 c from zero; where that binds, the interval reaches to zero.
    """
    most_T = LIMIT * concern(relevance_T, agreement)
    binds_T = np.abs(intensity_T) > most_T
    low_T, high_T = np.where(binds_T, np.minimum(low_T, 0.0), low_T), np.where(binds_T, np.maximum(high_T, 0.0), high_T)
    return np.clip(intensity_T, -most_T, most_T), low_T, high_T
