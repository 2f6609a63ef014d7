"""Calibrate the utilities of a build and write a version."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from valueflow import store
from valueflow.config import Config
from valueflow.ranking.calibration import CalibrateConfig
from valueflow.ranking.content_error import ContentError
from valueflow.records import ValueId, conform
from valueflow.store import Build, VidbDetails
from valueflow.tabular import csv_text
from valueflow.vidb.calibrated import CalibratedValue, calibrated_values
from valueflow.vidb.content import NOTHING_KNOWN, Knowledge, content_errors, own_intensities
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
        unselected: those of them that measure the judges' error: of texts that nobody chose because of what judges say.
        calibrating: those of them that the calibration uses.
        unmatched: number of ratings of texts that are not candidates.
        config: weight of the ratings.
        max_flags: flags at which a text waits for a person.
    """

    flags: dict[tuple[ValueId, str], int] | None = None
    human: Means = {}
    unselected: Means = {}
    calibrating: Means = {}
    unmatched: int = 0
    config: HumanConfig = HumanConfig()
    max_flags: int = 1


def review_of(candidates: Build, calibrate: CalibrateConfig, config: HumanConfig, base: Vidb | None = None) -> Review:
    """Return the human ratings of candidates in the files of both configs, with the flags and ratings of `base`, if any.

    Raises:
        InputError: see `human_ratings`.
    """
    before = _review_of_version(base) if base else Review()
    by_file = {url: human_ratings(url, candidates) for url in (calibrate.ratings, config.ratings)}
    calibrating, human = by_file[calibrate.ratings].unselected, by_file[config.ratings].means
    together = _together(calibrating, before.human, human)
    unselected = _together(calibrating, before.human, by_file[config.ratings].unselected)
    unmatched = sum(ratings.unmatched for ratings in by_file.values())
    return before._replace(human=together, unselected=unselected, calibrating=calibrating, unmatched=unmatched, config=config)


def _together(first: Means, second: Means, third: Means) -> Means:
    """All means; the last one counts where a text has several."""
    values = first | second | third
    return {value: first.get(value, {}) | second.get(value, {}) | third.get(value, {}) for value in values}


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


def plausibility_ballots(values: Iterable[CalibratedValue], out: Build) -> None:
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
    base: Vidb | None = None, card: Callable[[store.Manifest], str] | None = None, knowledge: Knowledge = NOTHING_KNOWN,
) -> store.Manifest:  # fmt: skip
    """Calibrate every value, merge human ratings, and write a version.

    Parquet; `csv/{value}_{theory}.csv` in the official columns (the full release), `csv-filtered/` (the texts on which judges
    and humans agree); `human_queue.csv` with the texts that the panel flagged; last the manifest.

    Args:
        candidates: texts with their sources and licences.
        utilities: theta of each.
        config: the source of zero and unit.
        review: flags and human ratings.
        lineage: how the version was built; calibrations, content errors and counts are added.
        out: the version.
        base: the version that this one extends; its calibration is kept.
        card: makes the dataset card.
        knowledge: what is known of the judges' content error besides the texts.
    """
    finished = store.reusable(out)
    if finished:
        log.info("publish: version %s, done before", out.build_id)
        return finished

    def values() -> Iterable[CalibratedValue]:
        return calibrated_values(candidates, utilities, config, review.calibrating, base)

    errors = content_errors(values(), review.unselected, config.extreme_quantile, knowledge, base)
    calibrations: dict[str, dict[str, Any]] = {}
    licenses: Counter[str] = Counter()
    counts = Counter({"flagged": 0, "rated_by_humans": 0, "filtered_release": 0})
    if review.unmatched:
        counts["unmatched_ratings"] = review.unmatched
    queue: list[list[object]] = []
    for at in values():
        calibrations[at.value] = at.calibration.model_dump()
        rows = _rows(at, review, errors)
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
    saved = {value: error.model_dump() for value, error in errors.items()}
    added = {"calibrations": calibrations, "content_errors": saved, "licenses": dict(licenses), **counts}
    details = lineage.model_copy(update=added)
    return store.commit(out, details, [candidates, utilities], card=card)


def _rows(at: CalibratedValue, review: Review, errors: Mapping[ValueId, ContentError]) -> pa.Table:
    own = own_intensities(at)
    intensity_N, low_N, high_N = errors[at.value].total(*own)
    ids = at.theta["text_id"].to_pylist()
    human_N = np.array([review.human.get(at.value, {}).get(i, np.nan) for i in ids])
    flags = None if review.flags is None else [review.flags.get((at.value, i), 0) for i in ids]
    rated_N, weight = np.isfinite(human_N), review.config.weight
    disagree_N = np.abs(human_N - own.intensity_N) > review.config.agreement
    flagged_N = np.array(flags or [0] * len(ids)) >= review.max_flags
    columns = {name: at.theta[name] for name in at.theta.column_names}
    columns |= {name: at.pool[name] for name in ("text", "direction", "source", "license")}
    columns |= {
        "intensity": intensity_N,
        "low": low_N,
        "high": high_N,
        "judge_intensity": own.intensity_N,
        "judge_low": own.low_N,
        "judge_high": own.high_N,
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
