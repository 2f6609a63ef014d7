"""How far the intensities of a build are from people's: the content error of each value, from the best that there is."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from valueflow.numerics.intervals import Z95
from valueflow.ranking.content_error import ContentError, Pool, from_neutral, known, pool_of
from valueflow.ranking.rating_regression import RatedTexts, from_ratings
from valueflow.records import ValueId
from valueflow.vidb.calibrated import CalibratedValue
from valueflow.vidb.ratings import Means
from valueflow.vidb.version import Vidb

HUMAN_RATINGS = "content error from {n} human ratings"


class Knowledge(NamedTuple):
    """What is known of the judges besides the texts of the build.

    Attributes:
        correlation: of their axis with the truth, where it is known.
        record: the validity record by value, where an audit on rated texts wrote one.
        shares: lower bound of the content error's share of the variance by value, from several judges' disagreement.
    """

    correlation: float | None = None
    record: Mapping[ValueId, ContentError] = {}
    shares: Mapping[ValueId, float] = {}


NOTHING_KNOWN = Knowledge()


class OwnIntensities(NamedTuple):
    """The judge's intensity of each text with its own 95 % interval, clipped to [-10, 10]."""

    intensity_N: np.ndarray
    low_N: np.ndarray
    high_N: np.ndarray


def own_intensities(at: CalibratedValue) -> OwnIntensities:
    """Return the calibrated thetas of a value, theta +- 1.96 standard errors as interval."""
    theta_N, error_N = at.theta["theta"].to_numpy(), at.theta["standard_error"].to_numpy()
    return OwnIntensities(*(at.calibration.to_intensity(theta_N + sign * Z95 * error_N) for sign in (0, -1, 1)))


def content_errors(
    values: Iterable[CalibratedValue], human: Means, extreme_quantile: float, knowledge: Knowledge, base: Vidb | None = None
) -> dict[ValueId, ContentError]:
    """Return the content error of every value.

    Of what is there, the best counts: the known truth of a simulated judge, human ratings of texts of the build, the validity
    record, the version that is extended, neutral texts; a record of texts of known direction alone comes after a version that
    rests on ratings. Without any of them the judge's own interval stays, and says so.

    Args:
        values: the values of the build.
        human: mean human ratings by value and text id.
        extreme_quantile: that is intensity 10, for the error of the unit.
        knowledge: of the judges.
        base: the version that this one extends.
    """
    pools: dict[ValueId, Pool] = {}
    rated: dict[ValueId, RatedTexts] = {}
    neutral_ids: set[str] = set()
    for at in values:
        ids, neutral_N = at.theta["text_id"].to_pylist(), at.pool["neutral"].to_numpy(zero_copy_only=False)
        pools[at.value] = _pool(at, neutral_N)
        neutral_ids.update(i for i, neutral in zip(ids, neutral_N, strict=True) if neutral)
        rated[at.value] = _rated(at, ids, human.get(at.value, {}))
    if knowledge.correlation is not None:
        source = "simulated judge, whose content error is known"
        return {value: known(knowledge.correlation, pool.spread, source) for value, pool in pools.items()}
    errors = dict.fromkeys(pools, ContentError())
    errors |= from_neutral(pools, len(neutral_ids), extreme_quantile, shares=knowledge.shares)
    if base and base.details.content_errors:
        errors |= {value: base.content_error(value) for value in pools}
    errors |= {
        value: error
        for value, error in knowledge.record.items()
        if value in pools and not (error.basis == "direction" and errors[value].rank > error.rank)
    }
    return errors | from_ratings(rated, list(pools), "ratings", HUMAN_RATINGS)


def _pool(at: CalibratedValue, neutral_N: np.ndarray) -> Pool:
    theta_N, error_N = at.theta["theta"].to_numpy(), at.theta["standard_error"].to_numpy()
    below_N, above_N = (at.calibration.unclipped(theta_N + sign * error_N) for sign in (-1, 1))
    return pool_of(at.calibration.unclipped(theta_N), (above_N - below_N) / 2, neutral_N)


def _rated(at: CalibratedValue, ids: list[str], ratings: Mapping[str, float]) -> RatedTexts:
    rows = [n for n, i in enumerate(ids) if i in ratings]
    intensity_N, low_N, high_N = (column[rows] for column in own_intensities(at))
    rating_N = np.array([ratings[ids[n]] for n in rows], float)
    # The knots of an isotonic calibration were fitted to such ratings: they leave less error than new texts will have.
    parameters = max(len(at.calibration.theta) - 2, 0) if at.calibration.mode in ("human", "rated") else 0
    return RatedTexts([ids[n] for n in rows], intensity_N, low_N, high_N, rating_N, parameters)
