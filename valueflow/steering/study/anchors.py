"""Scores of a study under redrawn anchors, from the rankings that its evaluations saved: no judge is called.

Shapes: B draws, T distinct texts, W values.
"""

from typing import Any

import numpy as np

from valueflow import store, vidb
from valueflow.evaluation.scoring import EvaluatorConfig, Scoring
from valueflow.ranking import calibration
from valueflow.records import ValueId
from valueflow.steering.study.data import Scores
from valueflow.steering.study.judge_error import Recalibrate, SavedAnswers, redrawn_scores
from valueflow.store import Build, EvaluationsDetails, RankingsDetails
from valueflow.vidb import validity
from valueflow.vidb.version import Vidb


def redrawn(scores: Scores, values: list[str], num_draws: int, seed: int, score: str) -> dict[str, np.ndarray]:
    """Return the scores of all texts of a judge under each draw, by value (B, T).

    A value is left out where nothing can be redrawn: a version without standard errors (an imported one), or evaluations
    without saved rankings.
    """
    result: dict[str, np.ndarray] = {}
    for build in scores.builds:
        details = store.details_of(build, EvaluationsDetails)
        rankings = next((i.build for i in store.require_manifest(build).inputs if i.build and i.table == "rankings"), None)
        if rankings is None:
            continue
        version = vidb.load(build.root, details.vidb_version)
        for value in map(ValueId, values):
            saved = _saved(version, rankings, value, details.sharpness.get(value))
            if saved is None:
                continue
            # One stream for each value: its anchors are drawn alike for all its texts.
            rng = np.random.default_rng([seed, *value.encode()])
            drawn_BU = redrawn_scores(saved, num_draws, rng, score)
            table_BT = result.setdefault(value, np.full((num_draws, len(scores.text_index)), np.nan))
            known = [(u, scores.text_index[i]) for u, i in enumerate(saved.text_ids) if i in scores.text_index]
            if known:
                units, texts = np.array(known).T
                table_BT[:, texts] = drawn_BU[:, units]
    return result


def _saved(version: Vidb, rankings: Build, value: ValueId, sharpness: float | None) -> SavedAnswers | None:
    """The answers of a value; None where its anchors have no standard errors, or it has no answers."""
    if sharpness is None or value not in version.calibrations:
        return None
    folder = store.value_folder(value)
    rows = store.read_table(version.build, ["text_id", "theta", "standard_error"], folder)
    if rows["standard_error"].null_count:
        return None
    anchors = version.anchors_of(value, rows)
    error = dict(zip(rows["text_id"].to_pylist(), rows["standard_error"].to_pylist(), strict=True))
    details = store.details_of(rankings, RankingsDetails)
    record = validity.load(version.build.root, details.fingerprint)
    errors = validity.content_errors(version, details.fingerprint, record)
    anchors = anchors._replace(content_error=errors.get(value, anchors.content_error))
    config = EvaluatorConfig.model_validate(details.evaluator)
    answers = store.read_table(rankings, folder=folder).to_pylist()
    text_ids = sorted({i for row in answers for i in row["text_ids"]} - set(anchors.text_ids.tolist()))
    if not text_ids:
        return None
    unit_of = Scoring(anchors, text_ids, sharpness, config, details.relevance_source).window_ids(config.m)
    by_unit: list[tuple[int, dict[str, Any]]] = [
        (unit_of[row["window_id"]], row) for row in answers if row["window_id"] in unit_of
    ]
    error_A = np.array([error[i] for i in anchors.text_ids])
    return SavedAnswers(
        anchors,
        error_A,
        text_ids,
        by_unit,
        sharpness,
        config,
        details.relevance_source,
        _recalibrate(version, value, anchors.text_ids),
    )


def _recalibrate(version: Vidb, value: ValueId, text_ids: np.ndarray) -> Recalibrate | None:
    """The map from redrawn theta to intensity where neutral texts set it; other maps rest on people's ratings and stay."""
    fitted = version.calibrations[value]
    if fitted.mode != "neutral":
        return None
    neutral = version.neutral_ids(value)
    is_neutral_A = np.array([i in neutral for i in text_ids])
    quantile = version.details.resolved.get("calibrate", {}).get("extreme_quantile")
    if quantile is None or not is_neutral_A.any():
        return None
    return lambda theta_A: calibration.neutral(theta_A, is_neutral_A, quantile)
