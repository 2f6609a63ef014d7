"""The texts that people may rate, by value: those of a VIDB version, or the responses of evaluations, with what judges say."""

import functools
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valueflow import store, vidb
from valueflow.errors import InputError
from valueflow.records import ValueId, text_id
from valueflow.store import Build, EvaluationsDetails

COLUMNS = ["text_id", "text", "intensity", "low", "high"]


class Pool(NamedTuple):
    """The distinct texts of one value, sorted by id; nan where nothing is known.

    Attributes:
        text_ids, texts: N.
        place_N3: intensity, low, high.
        disagreement_N: between the judges, on any scale.
    """

    text_ids: list[str]
    texts: list[str]
    place_N3: np.ndarray
    disagreement_N: np.ndarray


def version_values(root: str, version: str) -> tuple[Build, list[ValueId]]:
    """Return a VIDB version and its values."""
    loaded = vidb.load(root, version)
    return loaded.build, sorted(loaded.calibrations)


def version_pool(version: Build, value: ValueId) -> Pool:
    """Return the texts of a version's value. Judges disagree where they place it differently, or call it weird."""
    folder = store.value_folder(value)
    rows = store.read_table(version, [*COLUMNS, "flags"], folder).sort_by("text_id")
    ids = rows["text_id"].to_pylist()
    builds = store.details_of(version, store.VidbDetails).builds
    names = [name for name in builds if name == "rankings" or name.startswith("rankings ")]
    disagreement_N = np.full(len(ids), np.nan)
    if len(names) > 1:
        rankings = (Build(version.root, "rankings", builds[name]) for name in names)
        by_judge = [mean_places(store.read_table(build, ["text_ids", "order"], folder)) for build in rankings]
        place_JN = np.array([[places.get(i, np.nan) for i in ids] for places in by_judge])
        disagreement_N = place_JN.max(axis=0) - place_JN.min(axis=0)
    if rows["flags"].null_count < rows.num_rows:
        disagreement_N = np.nan_to_num(disagreement_N) + rows["flags"].fill_null(0).to_numpy()
    return Pool(ids, rows["text"].to_pylist(), _places(rows), disagreement_N)


def mean_places(rankings: pa.Table) -> dict[str, float]:
    """Return the mean place of each text in a judge's windows, from 0 (always first) to 1 (always last)."""
    valid = rankings.filter(pc.is_valid(rankings["order"]))
    totals: dict[str, tuple[float, int]] = {}
    for ids, order in zip(valid["text_ids"].to_pylist(), valid["order"].to_pylist(), strict=True):
        for place, index in enumerate(order):
            total, count = totals.get(ids[index], (0.0, 0))
            totals[ids[index]] = (total + place / (len(order) - 1), count + 1)
    return {i: total / count for i, (total, count) in totals.items()}


def evaluation_values(root: str, evaluations: list[str]) -> tuple[list[Build], list[ValueId]]:
    """Return evaluations and the values that the first one has.

    Raises:
        InputError: an evaluation is missing, or they are against different versions.
    """
    builds = [Build(root, "evaluations", build_id) for build_id in evaluations]
    versions = dict.fromkeys(store.details_of(build, EvaluationsDetails).vidb_version for build in builds)
    if len(versions) > 1:
        raise InputError(
            f"evaluations {', '.join(evaluations)} are against different versions: {', '.join(versions)}; give one's"
        )
    rows = _all_scores(builds[0]).group_by(["theory", "value"]).aggregate([])
    return builds, sorted(ValueId.of(row["theory"], row["value"]) for row in rows.to_pylist())


def evaluation_pool(evaluations: list[Build], value: ValueId) -> Pool:
    """Return the scored responses of the first evaluation; judges disagree where the others give another intensity."""
    scores = [_scores(build, value) for build in evaluations]
    ids = sorted(scores[0])
    place_N3 = np.array([scores[0][i][1] for i in ids], float).reshape(-1, 3)
    disagreement_N = np.full(len(ids), np.nan)
    if len(scores) > 1:
        intensity_JN = np.array([[of_judge[i][1][0] if i in of_judge else np.nan for i in ids] for of_judge in scores])
        disagreement_N = intensity_JN.max(axis=0) - intensity_JN.min(axis=0)
    return Pool(ids, [scores[0][i][0] for i in ids], place_N3, disagreement_N)


@functools.lru_cache(maxsize=8)  # evaluations that are compared: their one table holds all values
def _all_scores(evaluation: Build) -> pa.Table:
    return store.read_table(evaluation, ["response", "theory", "value", "intensity", "low", "high"])


def _scores(evaluation: Build, value: ValueId) -> dict[str, tuple[str, tuple[float, float, float]]]:
    rows = _all_scores(evaluation)
    of_value = pc.and_(pc.equal(rows["theory"], value.theory), pc.equal(rows["value"], value.node))
    scored = rows.filter(pc.and_(of_value, pc.is_valid(rows["intensity"]))).to_pylist()
    return {text_id(r["response"]): (r["response"], (r["intensity"], r["low"], r["high"])) for r in scored}


def _places(rows: pa.Table) -> np.ndarray:
    return np.stack([rows[name].cast(pa.float64()).fill_null(np.nan).to_numpy() for name in COLUMNS[2:]], axis=1)
