"""Rows of the table `profiles`: from the texts and scores of units, and back into arrays.

Shapes: T texts, U units, V values.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valueflow.profiles.centred import Centred, centre
from valueflow.profiles.estimate import EstimateConfig, Estimates, TextScores, UnitTexts, estimate
from valueflow.ranking.content_error import ContentError
from valueflow.records import SCHEMAS, ValueId, conform, digest

STATEMENTS = 3  # most characteristic texts of a unit and value


class Basis(NamedTuple):
    """What is the same for all units: the values, the judge's content errors, the scales, the settings."""

    values: tuple[ValueId, ...]
    errors: Mapping[ValueId, ContentError]
    scale: Mapping[ValueId, float]
    config: EstimateConfig
    shared_threads: bool = False  # keep the influence of every thread: units are compared thread by thread


def unit_ids(texts: pa.Table) -> dict[str, str]:
    """Return the id of each unit: the hash of its name and of its texts with threads and weights."""
    contents: dict[str, list[tuple[str, str, float]]] = {}
    for row in texts.select(["unit", "text_id", "thread", "weight"]).to_pylist():
        contents.setdefault(row["unit"], []).append((row["text_id"], row["thread"], row["weight"]))
    return {unit: digest(unit, sorted(content)) for unit, content in contents.items()}


def profile_rows(texts: pa.Table, scores: TextScores, basis: Basis, ids: Mapping[str, str]) -> pa.Table:
    """Return the rows of `profiles` of some units.

    Args:
        texts: rows of `unit_texts`, whole units, sorted by unit.
        scores: of the texts on the values of the basis.
        basis: see there.
        ids: of the units, by name.
    """
    names, values = texts["unit"].to_pylist(), basis.values
    threads = texts["thread"].to_pylist()
    coded = UnitTexts.of(names, threads if any(threads) else None, texts["weight"].to_numpy())
    scale_V = np.array([basis.scale[value] for value in values])
    found = estimate(coded, scores, [basis.errors[value] for value in values], basis.config)
    relative = centre(
        found.mean_UV, found.shared_error_UV, found.influence_CV, found.unit_C, found.num_clusters_UV, scale_V,
        [value.theory for value in values],
    )  # fmt: skip
    statements = _statements(coded, scores, found, basis.config.min_relevance, texts["text_id"].to_pylist())
    shared: list[tuple[list[str], list[float]]] = [([], [])] * found.mean_UV.size
    if basis.shared_threads:
        shared = _influences(coded, found, threads)
    return _table(list(dict.fromkeys(names)), values, found, relative, statements, shared, ids)


def _influences(texts: UnitTexts, found: Estimates, threads: Sequence[str]) -> list[tuple[list[str], list[float]]]:
    """By unit and then value, the threads and the influence of each on the mean; nothing where the value is missing."""
    name_C = np.empty(len(found.unit_C), object)
    name_C[texts.cluster_T] = threads
    lists: list[tuple[list[str], list[float]]] = []
    for u, mean_V in enumerate(found.mean_UV):
        of_unit = np.flatnonzero(found.unit_C == u)
        for v, mean in enumerate(mean_V):
            of_value = of_unit[found.influence_CV[of_unit, v] != 0] if np.isfinite(mean) else of_unit[:0]
            lists.append((name_C[of_value].tolist(), found.influence_CV[of_value, v].tolist()))
    return lists


def _table(
    units: Sequence[str], values: Sequence[ValueId], found: Estimates, relative: Centred, statements: list[list[str]],
    shared: list[tuple[list[str], list[float]]], ids: Mapping[str, str],
) -> pa.Table:  # fmt: skip
    numbers = {
        "intensity": found.mean_UV, "low": found.low_UV, "high": found.high_UV, "standard_error": found.standard_error_UV,
        "shared_error": found.shared_error_UV, "standardized": relative.standardized_UV, "mean_rating": relative.mrat_UV,
        "centred": relative.centred_UV, "centred_low": relative.low_UV, "centred_high": relative.high_UV,
        "centred_error": relative.standard_error_UV,
    }  # fmt: skip
    counts = {"num_texts": found.num_texts_UV, "num_clusters": found.num_clusters_UV, "num_left_out": found.num_left_out_UV}
    halves = found.halves_UV2S.reshape(-1, found.halves_UV2S.shape[2])
    whole = np.isfinite(halves).all(1)
    table = {
        "profile_id": [digest(ids[unit], value) for unit in units for value in values],
        "unit_id": [ids[unit] for unit in units for _ in values], "unit": [unit for unit in units for _ in values],
        "theory": [value.theory for _ in units for value in values],
        "value": [value.node for _ in units for value in values],
        **{name: pa.array(x.ravel(), mask=~np.isfinite(x.ravel())) for name, x in numbers.items()},
        **{name: pa.array(x.ravel().astype(np.int32)) for name, x in counts.items()},
        "halves": pa.array([row.tolist() if ok else [] for row, ok in zip(halves, whole, strict=True)], pa.list_(pa.float64())),
        "statements": pa.array(statements, pa.list_(pa.string())),
        "threads": pa.array([threads for threads, _ in shared], pa.list_(pa.string())),
        "influence": pa.array([influence for _, influence in shared], pa.list_(pa.float64())),
    }  # fmt: skip
    return conform(pa.table(table), "profiles")


def _statements(
    texts: UnitTexts, scores: TextScores, found: Estimates, min_relevance: float, ids: Sequence[str]
) -> list[list[str]]:
    """By unit and then value, the ids of the relevant texts that lie furthest on the side of the unit's mean."""
    num_units, num_values = found.mean_UV.shape
    start_U = np.searchsorted(texts.unit_T, np.arange(num_units + 1))
    columns: list[list[list[str]]] = []
    for v in range(num_values):
        side_T = np.sign(np.nan_to_num(found.mean_UV[:, v]))[texts.unit_T]
        relevance_T = np.where(np.isnan(scores.relevance_TV[:, v]), 1.0, scores.relevance_TV[:, v])
        weight_T = np.where(relevance_T >= min_relevance, side_T * np.nan_to_num(scores.judge_TV[:, v]) * relevance_T, -np.inf)
        order = np.lexsort((-weight_T, texts.unit_T))
        of_value = []
        for u in range(num_units):
            first = order[start_U[u] : start_U[u] + STATEMENTS] if start_U[u + 1] > start_U[u] else []
            first = [i for i in first if weight_T[i] > 0 and texts.unit_T[i] == u]
            of_value.append(list(dict.fromkeys(ids[i] for i in first)))
        columns.append(of_value)
    return [columns[v][u] for u in range(num_units) for v in range(num_values)]


class UnitProfiles(NamedTuple):
    """The profiles of units as arrays (U, V) by column of `profiles`; nan where a value is missing."""

    units: list[str]
    values: tuple[ValueId, ...]
    columns: dict[str, np.ndarray]
    halves_UV2S: np.ndarray
    statements: dict[tuple[str, ValueId], list[str]]
    influence_QUV: np.ndarray | None = None  # of threads that all units share; 0 where a unit has none

    def of(self, unit: str) -> int:
        """Return the number of a unit."""
        return self.units.index(unit)


NUMBERS = tuple(
    field.name for field in SCHEMAS["profiles"] if pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
)


def as_arrays(rows: pa.Table) -> UnitProfiles:
    """Return rows of `profiles` as arrays, the units in the order of their names."""
    pairs = pc.binary_join_element_wise(rows["theory"], rows["value"], ":").to_pylist()
    values = tuple(map(ValueId, dict.fromkeys(pairs)))
    names = rows["unit"].to_pylist()
    units = sorted(set(names))
    unit_R, value_R = ({name: i for i, name in enumerate(of)} for of in (units, values))
    at = np.array([unit_R[name] for name in names]), np.array([value_R[ValueId(pair)] for pair in pairs])
    columns = {}
    for name in NUMBERS:
        columns[name] = np.full((len(units), len(values)), np.nan)
        columns[name][at] = rows[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
    halves = rows["halves"].to_pylist()
    halves_UV2S = np.full((len(units), len(values), max(map(len, halves), default=0)), np.nan)
    for u, v, numbers in zip(*at, halves, strict=True):
        if numbers:
            halves_UV2S[u, v] = numbers
    statements = {
        (name, ValueId(pair)): texts for name, pair, texts in zip(names, pairs, rows["statements"].to_pylist(), strict=True)
    }
    return UnitProfiles(units, values, columns, halves_UV2S, statements, _shared(rows, at, (len(units), len(values))))


def _shared(rows: pa.Table, at: tuple[np.ndarray, np.ndarray], shape: tuple[int, int]) -> np.ndarray | None:
    """The influence of the threads of all rows; None where none is known."""
    threads = rows["threads"].to_pylist()
    number = {name: q for q, name in enumerate(dict.fromkeys(name for of_row in threads for name in of_row))}
    if not number:
        return None
    influence_QUV = np.zeros((len(number), *shape))
    for u, v, names, numbers in zip(*at, threads, rows["influence"].to_pylist(), strict=True):
        influence_QUV[[number[name] for name in names], u, v] = numbers
    return influence_QUV
