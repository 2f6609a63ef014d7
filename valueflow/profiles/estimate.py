"""Profiles of units from scored texts: mean, interval, standard error and halves of every value, for many units at once.

Shapes: T texts (a text that two units wrote is two), C clusters, U units, V values, S splits into halves.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pydantic import Field
from scipy.sparse import csr_array
from scipy.stats import t

from valueflow import defaults
from valueflow.config import Config
from valueflow.numerics.hashing import combine64, mix64, stream64
from valueflow.numerics.intervals import Z95
from valueflow.profiles import bootstrap
from valueflow.profiles.people_scale import PeopleScale
from valueflow.ranking.content_error import ContentError
from valueflow.records import LIMIT

SPLITS = 10  # into random halves
MIN_TEXTS = 5


class EstimateConfig(Config):
    """Which texts count, and when a value is missing."""

    min_relevance: float = Field(
        defaults.MIN_RELEVANCE, ge=0, le=1, description="texts of less relevance for a value do not count in its mean"
    )
    min_texts: int = Field(MIN_TEXTS, ge=2, description="a value with fewer relevant texts is missing")
    seed: int = Field(defaults.SEED, ge=0, description="of the bootstrap and of the halves")


class UnitTexts(NamedTuple):
    """What belongs together; codes from 0 without gaps, and the units of a cluster's texts are one.

    Attributes:
        unit_T: unit of each text.
        cluster_T: cluster of each text within its unit: a thread or an author; a text of its own otherwise. The clusters of a
            unit have consecutive codes, in the order of the units.
        weight_T: weight of each text, above 0.
    """

    unit_T: np.ndarray
    cluster_T: np.ndarray
    weight_T: np.ndarray

    @classmethod
    def of(cls, names: Sequence[str], threads: Sequence[str] | None, weight_T: np.ndarray) -> "UnitTexts":
        """Return the codes of texts in any order, by the names of their units and threads; one without a thread is its own."""
        units = {name: u for u, name in enumerate(dict.fromkeys(names))}
        unit_T = np.array([units[name] for name in names], int)
        thread_T = (
            [thread or f"\n{i}" for i, thread in enumerate(threads)] if threads else [f"\n{i}" for i in range(len(names))]
        )
        clusters = sorted(dict.fromkeys(zip(unit_T.tolist(), thread_T, strict=True)), key=lambda cluster: cluster[0])
        code = {cluster: c for c, cluster in enumerate(clusters)}
        cluster_T = np.array([code[cluster] for cluster in zip(unit_T.tolist(), thread_T, strict=True)], int)
        return cls(unit_T, cluster_T, weight_T)


class TextScores(NamedTuple):
    """The judge's intensity of each text (T, V), nan where there is none, and its relevance, nan where unknown."""

    judge_TV: np.ndarray
    relevance_TV: np.ndarray


class Estimates(NamedTuple):
    """The profiles of U units. Points of intensity; nan where a value is missing.

    Attributes:
        mean_UV: people's mean intensity.
        low_UV: lower end of the 95 % interval.
        high_UV: upper end.
        standard_error_UV: of the mean, from the sample of texts: with it differences of units are tested.
        shared_error_UV: standard error that all units share or that the move adds.
        num_texts_UV: texts that count.
        num_clusters_UV: clusters of these.
        num_left_out_UV: texts with a score that are not relevant.
        halves_UV2S: means of two random halves of the clusters, unmoved; nan where a half has no text.
        influence_CV: of each cluster on the mean of its unit; their sum of squares is about the squared standard error.
        unit_C: the unit of each cluster.
    """

    mean_UV: np.ndarray
    low_UV: np.ndarray
    high_UV: np.ndarray
    standard_error_UV: np.ndarray
    shared_error_UV: np.ndarray
    num_texts_UV: np.ndarray
    num_clusters_UV: np.ndarray
    num_left_out_UV: np.ndarray
    halves_UV2S: np.ndarray
    influence_CV: np.ndarray
    unit_C: np.ndarray


class _Sums(NamedTuple):
    """Weighted sums of the unmoved intensities of relevant texts."""

    total_CV: np.ndarray
    weight_CV: np.ndarray
    mean_UV: np.ndarray
    weight_UV: np.ndarray
    size_UV: np.ndarray  # effective number of texts
    by_unit_UC: csr_array


def estimate(texts: UnitTexts, scores: TextScores, errors: Sequence[ContentError], config: EstimateConfig) -> Estimates:
    """Return the profiles of the units.

    Args:
        texts: of all units.
        scores: of the texts, by the judge.
        errors: content error of the judge by value.
        config: which texts count.
    """
    scale = PeopleScale.of(errors)
    scored_TV = np.isfinite(scores.judge_TV)
    used_TV = scored_TV & ~(scores.relevance_TV < config.min_relevance)
    unmoved_TV = np.where(used_TV, scale.unmoved(scores.judge_TV), 0.0)
    num_units = int(texts.unit_T.max(initial=-1)) + 1
    num_UV = _by(texts.unit_T, num_units) @ used_TV.astype(float)
    left_out_UV = _by(texts.unit_T, num_units) @ (scored_TV & ~used_TV).astype(float)
    unit_C = np.zeros(int(texts.cluster_T.max(initial=-1)) + 1, int)
    unit_C[texts.cluster_T] = texts.unit_T
    sums = _sums(texts, unit_C, num_units, unmoved_TV, used_TV)
    clusters_UV = sums.by_unit_UC @ (sums.weight_CV > 0).astype(float)
    deviation_CV = sums.total_CV - sums.mean_UV[unit_C] * sums.weight_CV
    correction_UV = np.sqrt(clusters_UV / np.maximum(clusters_UV - 1, 1))
    influence_CV = deviation_CV / sums.weight_UV[unit_C] * correction_UV[unit_C]
    move_UV = scale.move(sums.size_UV)
    error_UV = move_UV * np.sqrt(sums.by_unit_UC @ influence_CV**2)
    below_UV, above_UV = _bootstrap_ends(deviation_CV, sums.weight_CV, unit_C, clusters_UV, config)
    quantile_UV = t.ppf(0.975, np.maximum(clusters_UV - 1, 1))
    few_UV = clusters_UV < bootstrap.MIN_CLUSTERS
    below_UV, above_UV = (np.where(few_UV, quantile_UV * error_UV, move_UV * np.abs(end_UV)) for end_UV in (below_UV, above_UV))
    rest_UV = scale.rest(sums.mean_UV, move_UV)
    mean_UV = scale.middle_V + move_UV * (sums.mean_UV - scale.middle_V)
    low_UV = mean_UV - scale.factor_V * np.hypot(below_UV, Z95 * rest_UV)
    high_UV = mean_UV + scale.factor_V * np.hypot(above_UV, Z95 * rest_UV)
    missing_UV = (num_UV < config.min_texts) | (clusters_UV < 2)  # one cluster says nothing about the spread of others
    mean_UV, low_UV, high_UV = (np.where(missing_UV, np.nan, np.clip(x, -LIMIT, LIMIT)) for x in (mean_UV, low_UV, high_UV))
    error_UV, rest_UV = (np.where(missing_UV, np.nan, x) for x in (error_UV, rest_UV))
    return Estimates(
        mean_UV, low_UV, high_UV, error_UV, rest_UV, num_UV.astype(int), clusters_UV.astype(int), left_out_UV.astype(int),
        _halves(sums, unit_C, config.seed), move_UV[unit_C] * influence_CV, unit_C,
    )  # fmt: skip


def _by(code_T: np.ndarray, size: int, weight_T: np.ndarray | None = None) -> csr_array:
    """The matrix that sums over codes (size, T)."""
    ones = np.ones(len(code_T)) if weight_T is None else weight_T
    return csr_array((ones, (code_T, np.arange(len(code_T)))), shape=(size, len(code_T)))


def _sums(texts: UnitTexts, unit_C: np.ndarray, num_units: int, unmoved_TV: np.ndarray, used_TV: np.ndarray) -> _Sums:
    by_cluster_CT = _by(texts.cluster_T, len(unit_C), texts.weight_T)
    total_CV, weight_CV = by_cluster_CT @ unmoved_TV, by_cluster_CT @ used_TV.astype(float)
    by_unit_UC = _by(unit_C, num_units)
    weight_UV = by_unit_UC @ weight_CV
    square_UV = _by(texts.unit_T, num_units, texts.weight_T**2) @ used_TV.astype(float)
    safe_UV = np.where(weight_UV > 0, weight_UV, 1.0)
    size_UV = np.divide(weight_UV**2, square_UV, out=np.zeros_like(weight_UV), where=square_UV > 0)
    return _Sums(total_CV, weight_CV, (by_unit_UC @ total_CV) / safe_UV, safe_UV, size_UV, by_unit_UC)


def _bootstrap_ends(
    deviation_CV: np.ndarray, weight_CV: np.ndarray, unit_C: np.ndarray, clusters_UV: np.ndarray, config: EstimateConfig
) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the interval of the unmoved means of values with enough clusters, as differences from the mean."""
    num_units, num_values = clusters_UV.shape
    low_UV, high_UV = np.zeros((num_units, num_values)), np.zeros((num_units, num_values))
    cells = [np.flatnonzero(weight_CV[:, v] > 0) for v in range(num_values)]
    cells = [cell[np.argsort(unit_C[cell], kind="stable")] for cell in cells]
    starts_UV = np.cumsum(clusters_UV, 0).astype(int) - clusters_UV.astype(int)
    for size in np.unique(clusters_UV[clusters_UV >= bootstrap.MIN_CLUSTERS]).astype(int):
        unit_R, value_R = np.nonzero(clusters_UV == size)
        row_RG = np.empty((len(unit_R), size), int)
        for v in np.unique(value_R):
            of_value = value_R == v
            row_RG[of_value] = cells[v][starts_UV[unit_R[of_value], v][:, None] + np.arange(size)]
        column_R1 = value_R[:, None]
        ends = bootstrap.interval(deviation_CV[row_RG, column_R1], weight_CV[row_RG, column_R1], config.seed)
        low_UV[unit_R, value_R], high_UV[unit_R, value_R] = ends
    return low_UV, high_UV


def _halves(sums: _Sums, unit_C: np.ndarray, seed: int) -> np.ndarray:
    """Unmoved means of two random halves of each unit's clusters, in S splits (U, V, 2S)."""
    columns = []
    start_U = np.r_[0, np.cumsum(np.bincount(unit_C, minlength=len(sums.mean_UV)))[:-1]]
    # By the number within the unit, so that a unit's halves do not depend on other units.
    within_C = (np.arange(len(unit_C)) - start_U[unit_C]).astype(np.uint64)
    for split in range(SPLITS):
        key_C = mix64(combine64(within_C, np.full(len(unit_C), seed, np.uint64)) ^ stream64(split + 1))
        order = np.lexsort((key_C, unit_C))
        side_C = np.empty(len(unit_C), int)
        side_C[order] = (np.arange(len(unit_C)) - start_U[unit_C[order]]) % 2
        for side in (0, 1):
            of_side = (side_C == side)[:, None]
            weight_UV = sums.by_unit_UC @ np.where(of_side, sums.weight_CV, 0.0)
            total_UV = sums.by_unit_UC @ np.where(of_side, sums.total_CV, 0.0)
            columns.append(np.divide(total_UV, weight_UV, out=np.full_like(total_UV, np.nan), where=weight_UV > 0))
    return np.stack(columns, 2)
