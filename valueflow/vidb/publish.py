"""Calibrate the utilities of a build and write a version."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from valueflow import store
from valueflow.config import Config
from valueflow.errors import InputError
from valueflow.numerics.intervals import Z95
from valueflow.ranking import calibration
from valueflow.ranking.calibration import CalibrateConfig, Calibration
from valueflow.records import ValueId, conform
from valueflow.store import Build, VidbDetails
from valueflow.tabular import csv_text
from valueflow.vidb.ratings import Means, human_ratings
from valueflow.vidb.version import Vidb
from valueflow.voting.descend import Ballot, ballot_table

log = logging.getLogger(__name__)
PLAUSIBLE = ("plausible", "weird")
# Columns of the human queue. People fill in a rating beside them; the file is then read back as human ratings.
QUEUE = ["theory", "value", "text_id", "text", "intensity", "low", "high", "flags"]


class HumanConfig(Config):
    """Human ratings of single texts and their weight (VALUEFLOW, step 5 of VIDB)."""

    ratings: str = Field("", description="CSV: theory, value, text, rating in [-10, 10]; one row per rater and text")
    weight: float = Field(0.5, ge=0, le=1, description="lambda: final rating = (1 - lambda) * intensity + lambda * human mean")
    agreement: float = Field(
        4.0, ge=0, le=20, description="filtered release: largest difference at which judges and humans count as agreeing"
    )


class Review(NamedTuple):
    """What people and a panel say of the texts.

    Attributes:
        flags: of the plausibility panel by (value, text id), None without a panel.
        human: mean ratings by value and text id.
        calibrating: those of them that the calibration uses.
        unmatched: number of ratings of texts that are not candidates.
        config: weight of the ratings.
        max_flags: flags at which a text waits for a person.
    """

    flags: dict[tuple[ValueId, str], int] | None = None
    human: Means = {}
    calibrating: Means = {}
    unmatched: int = 0
    config: HumanConfig = HumanConfig()
    max_flags: int = 1


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
        value = ValueId.of(pool["theory"][0].as_py(), pool["value"][0].as_py())
        fitted = base.calibrations[value] if base else _calibrate(value, theta, pool, ratings.get(value, {}), config)
        yield CalibratedValue(value, folder, theta, pool, fitted)


def review_of(candidates: Build, calibrate: CalibrateConfig, config: HumanConfig, base: Vidb | None = None) -> Review:
    """Return the human ratings of candidates in the files of both configs, with the flags and ratings of `base`, if any.

    Raises:
        InputError: see `human_ratings`.
    """
    before = _review_of_version(base) if base else Review()
    by_file = {url: human_ratings(url, candidates) for url in (calibrate.ratings, config.ratings)}
    calibrating, human = by_file[calibrate.ratings].means, by_file[config.ratings].means
    together = {
        value: calibrating.get(value, {}) | before.human.get(value, {}) | human.get(value, {})
        for value in calibrating | before.human | human
    }
    unmatched = sum(ratings.unmatched for ratings in by_file.values())
    return before._replace(human=together, calibrating=calibrating, unmatched=unmatched, config=config)


def _review_of_version(base: Vidb) -> Review:
    """The flags and human mean ratings of a version's texts."""
    rows = store.read_table(base.build, ["theory", "value", "text_id", "flags", "human_mean"]).to_pylist()
    flags: dict[tuple[ValueId, str], int] = {
        (ValueId.of(r["theory"], r["value"]), r["text_id"]): r["flags"] for r in rows if r["flags"] is not None
    }
    human: Means = {}
    for row in rows:
        if row["human_mean"] is not None:
            human.setdefault(ValueId.of(row["theory"], row["value"]), {})[row["text_id"]] = row["human_mean"]
    settings = base.details.resolved.get("plausibility") or {"max_flags": 1}
    return Review(flags or None, human, max_flags=settings["max_flags"])


def plausibility_ballots(values: Iterator[CalibratedValue], out: Build) -> None:
    """Write one ballot per text and value; its question is whether the intensity is plausible or weird."""
    for at in values:
        intensities = at.calibration.to_intensity(at.theta["theta"].to_numpy())
        ballots = [
            Ballot("plausible", at.value.theory, at.value.node, i, PLAUSIBLE, 0, f"{intensity:+.1f}")
            for i, intensity in zip(at.theta["text_id"].to_pylist(), intensities, strict=True)
        ]
        store.write_part(out, ballot_table(ballots), "0", at.folder)


def write_version(
    candidates: Build, utilities: Build, config: CalibrateConfig, review: Review, lineage: VidbDetails, out: Build,
    base: Vidb | None = None, card: Callable[[store.Manifest], str] | None = None,
) -> store.Manifest:  # fmt: skip
    """Calibrate every value, merge human ratings, and write a version.

    Parquet; `csv/{value}_{theory}.csv` in the official columns (the full release), `csv-filtered/` (the texts on which judges
    and humans agree); `human_queue.csv` with the texts that the panel flagged; last the manifest.

    Args:
        candidates: texts with their sources and licences.
        utilities: theta of each.
        config: the source of zero and unit.
        review: flags and human ratings.
        lineage: how the version was built; calibrations and counts are added.
        out: the version.
        base: the version that this one extends; its calibration is kept.
        card: makes the dataset card.
    """
    finished = store.reusable(out)
    if finished:
        log.info("publish: version %s, done before", out.build_id)
        return finished
    calibrations: dict[str, Calibration] = {}
    licenses: Counter[str] = Counter()
    counts = Counter({"flagged": 0, "rated_by_humans": 0, "filtered_release": 0})
    if review.unmatched:
        counts["unmatched_ratings"] = review.unmatched
    queue: list[list[object]] = []
    for at in calibrated_values(candidates, utilities, config, review.calibrating, base):
        calibrations[at.value] = at.calibration
        rows = _rows(at, review)
        store.write_part(out, rows, "0", at.folder)
        _write_csv(rows, at.value, out, "csv")
        _write_csv(rows.filter(rows["agreed"]), at.value, out, "csv-filtered")
        licenses.update(rows["license"].to_pylist())
        flagged = pc.greater_equal(pc.fill_null(rows["flags"], 0), review.max_flags)
        waiting = rows.filter(pc.and_(flagged, pc.is_null(rows["human_mean"])))
        queue += [[*row.values(), ""] for row in waiting.select(QUEUE).to_pylist()]
        counts["flagged"] += pc.sum(flagged).as_py() or 0
        counts["rated_by_humans"] += rows.num_rows - rows["human_mean"].null_count
        counts["filtered_release"] += pc.sum(rows["agreed"]).as_py() or 0
    store.write_for_people(f"{out.url}/human_queue.csv", csv_text([*QUEUE, "rating"], queue).encode())
    saved = {value: calibration.model_dump() for value, calibration in calibrations.items()}
    details = lineage.model_copy(update={"calibrations": saved, "licenses": dict(licenses), **counts})
    return store.commit(out, details, [candidates, utilities], card=card)


def _calibrate(
    value: ValueId, theta: pa.Table, pool: pa.Table, ratings: dict[str, float], config: CalibrateConfig
) -> Calibration:
    theta_N = theta["theta"].to_numpy()
    try:
        if config.mode == "neutral":
            return calibration.neutral(theta_N, pool["neutral"].to_numpy(), config.extreme_quantile)
        rated = [(t, ratings[i]) for i, t in zip(theta["text_id"].to_pylist(), theta_N, strict=True) if i in ratings]
        if len(rated) < 3:
            raise InputError(f"{config.ratings} has ratings of {len(rated)} texts; at least 3 are needed")
        theta_R, rating_R = np.array(rated).T
        return calibration.isotonic(theta_R, rating_R, config.mode)
    except InputError as error:
        raise InputError(f"{value}: {error}") from None


def _rows(at: CalibratedValue, review: Review) -> pa.Table:
    theta_N, error_N = at.theta["theta"].to_numpy(), at.theta["standard_error"].to_numpy()
    intensity_N = at.calibration.to_intensity(theta_N)
    ids = at.theta["text_id"].to_pylist()
    human_N = np.array([review.human.get(at.value, {}).get(i, np.nan) for i in ids])
    flags = None if review.flags is None else [review.flags.get((at.value, i), 0) for i in ids]
    rated_N, weight = np.isfinite(human_N), review.config.weight
    disagree_N = np.abs(human_N - intensity_N) > review.config.agreement
    flagged_N = np.array(flags or [0] * len(ids)) >= review.max_flags
    columns = {name: at.theta[name] for name in at.theta.column_names}
    columns |= {name: at.pool[name] for name in ("text", "direction", "source", "license")}
    columns |= {
        "intensity": intensity_N,
        "low": at.calibration.to_intensity(theta_N - Z95 * error_N),
        "high": at.calibration.to_intensity(theta_N + Z95 * error_N),
        "flags": pa.array(flags, pa.int32()) if flags else pa.nulls(len(ids), pa.int32()),
        "human_mean": pa.array(human_N, from_pandas=True),
        "final_rating": np.where(rated_N, (1 - weight) * intensity_N + weight * np.nan_to_num(human_N), intensity_N),
        # A flag counts until a person has rated the text; a human rating far from the judges' excludes it.
        "agreed": np.where(rated_N, ~disagree_N, ~flagged_N),
    }
    return conform(pa.table(columns), "vidb")


def _write_csv(rows: pa.Table, value: ValueId, out: Build, folder: str) -> None:
    """`{folder}/{value}_{theory}.csv` with the official evaluator's columns."""
    rated = zip(rows["text"].to_pylist(), rows["final_rating"].to_pylist(), strict=True)
    content = csv_text(["text", "final_rating"], rated)
    store.write_bytes(f"{out.url}/{folder}/{value.node}_{value.theory}.csv", content.encode())
