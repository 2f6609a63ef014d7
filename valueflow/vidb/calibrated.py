"""The values of a build with their calibrations, one in memory at a time."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from valueflow import store
from valueflow.errors import DamageError, InputError
from valueflow.ranking import calibration
from valueflow.ranking.calibration import CalibrateConfig, Calibration
from valueflow.records import ValueId
from valueflow.store import Build
from valueflow.vidb.ratings import Means
from valueflow.vidb.version import Vidb


class CalibratedValue(NamedTuple):
    """The rows of one value in the order of text ids, with the calibration of their intensity."""

    value: ValueId
    folder: str
    theta: pa.Table
    pool: pa.Table
    calibration: Calibration


def calibrated_values(
    candidates: Build, utilities: Build, config: CalibrateConfig, ratings: Means, base: Vidb | None = None
) -> Iterator[CalibratedValue]:
    """Yield every value of a build with its calibration (that of `base`, if any); one value is in memory at a time."""
    for file in store.require_manifest(utilities).files:
        folder = file.path.rpartition("/")[0]
        theta = store.read_part(utilities, file).sort_by("text_id")
        pool = store.read_table(candidates, folder=folder).sort_by("text_id")
        if not theta["text_id"].equals(pool["text_id"]):
            raise DamageError(f"{utilities.url}/{file.path} is of other texts than {candidates.url}; {store.MAKE_AGAIN}")
        value = ValueId.of(pool["theory"][0].as_py(), pool["value"][0].as_py())
        fitted = base.calibrations[value] if base else _calibrate(value, theta, pool, ratings.get(value, {}), config)
        yield CalibratedValue(value, folder, theta, pool, fitted)


def _calibrate(
    value: ValueId, theta: pa.Table, pool: pa.Table, ratings: dict[str, float], config: CalibrateConfig
) -> Calibration:
    theta_N = theta["theta"].to_numpy()
    try:
        if config.mode == "neutral":
            return calibration.neutral(theta_N, pool["neutral"].to_numpy(), config.extreme_quantile)
        rated = [(t, ratings[i]) for i, t in zip(theta["text_id"].to_pylist(), theta_N, strict=True) if i in ratings]
        if len(rated) < 3:
            raise InputError(
                f"{config.ratings} has ratings of {len(rated)} texts; at least 3 are needed, of texts whose basis, if the file "
                "says it, is random"
            )
        theta_R, rating_R = np.array(rated).T
        return calibration.isotonic(theta_R, rating_R, config.mode)
    except InputError as error:
        raise InputError(f"{value}: {error}") from None
