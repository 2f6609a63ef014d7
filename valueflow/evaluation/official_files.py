"""Files of the official evaluator: scores from its rankings CSV, and scores written in its CSV format."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from valueflow.errors import InputError
from valueflow.evaluation.scoring import EvaluatorConfig, Posterior, Total, Window, estimate_sharpness
from valueflow.ranking.calibration import Calibration
from valueflow.records import SCHEMAS, ValueId, clean, digest
from valueflow.tabular import cell, columns, csv_text, strict_rows
from valueflow.vidb.anchor_files import intensity_of
from valueflow.vidb.version import Anchors


def score_rankings(url: str, value: ValueId, config: EvaluatorConfig) -> tuple[pa.Table, float]:
    """Return `evaluations` rows and the judge's sharpness from an official rankings CSV, without a judge or a VIDB.

    Columns: row_idx, target_text, db_text_i, db_score_i, ranking. `ranking` has 1-based positions, best first; 1 is the
    response and i+1 is anchor i. Windows with the same row_idx and target_text are one unit. An invalid ranking is a failed
    window.

    Raises:
        InputError: a column is missing, or an anchor's score is not a number in [-10, 10].
    """
    scores = [name for name in columns(url) if name.startswith("db_score_")] or ["db_score_1"]
    names = ("row_idx", "target_text", "ranking")
    read = list(strict_rows(url, [*names, *scores]))
    if not read:
        raise InputError(f"{url} holds no ranking")
    rows = [{name: cell(row.fields, name) for name in names} for row in read]
    theta_A = np.array([intensity_of(row.fields[name], f"{row.location} {name}") for row in read for name in scores])
    per_window = len(scores)
    windows = [Window(np.arange(i * per_window, (i + 1) * per_window), 0) for i in range(len(rows))]
    orders = [_order(row["ranking"], per_window + 1) for row in rows]
    answered = [(w, order) for w, order in zip(windows, orders, strict=True) if order is not None]
    anchor_theta = [np.insert(theta_A[w.anchors], 0, np.nan) for w, _ in answered]
    sharpness = config.sharpness or estimate_sharpness(anchor_theta, [order for _, order in answered])
    unit = {key: i for i, key in enumerate(dict.fromkeys((row["row_idx"], row["target_text"]) for row in rows))}
    posterior = Posterior(
        Anchors(value.theory, value.node, np.arange(len(theta_A)), theta_A, Calibration.identity()), len(unit), sharpness
    )
    counts = np.zeros((len(unit), 2), int)
    for row, window, order in zip(rows, windows, orders, strict=True):
        u = unit[row["row_idx"], row["target_text"]]
        counts[u, 0 if order else 1] += 1
        if order:
            posterior.update(u, window, order, None)
    table = []
    for (row_idx, text), score, (num_windows, num_failed) in zip(unit, posterior.scores(), counts.tolist(), strict=True):
        interval = Total(*score, *score)._asdict() if num_windows else {}
        response = {"response_id": digest(row_idx, text), "dataset": "official rankings", "response": clean(text), "query": ""}
        provenance = {"judge": "official rankings", "vidb_version": url, "sampling": "saved", "k": per_window + 1}
        numbers = {"num_windows": num_windows, "num_failed": num_failed, "m": num_windows + num_failed}
        table.append({"theory": value.theory, "value": value.node} | response | provenance | numbers | interval)
    return pa.Table.from_pylist(table, SCHEMAS["evaluations"]), sharpness


def scores_csv(evaluations: Iterable[pa.Table], values: Sequence[str]) -> str:
    """Return the official scores CSV: query, dataset, response and a column `{value}_score` for each value.

    Args:
        evaluations: tables that are read one after another; each holds all rows of its responses.
        values: nodes, in the order of their columns.
    """
    header = ["query", "dataset", "response", *(f"{value}_score" for value in values)]
    return csv_text(header, ([entry.get(name) for name in header] for table in evaluations for entry in _by_response(table)))


def _by_response(evaluations: pa.Table) -> Iterable[dict[str, Any]]:
    by_response: dict[str, dict[str, Any]] = {}
    for row in evaluations.to_pylist():
        entry = by_response.setdefault(row["response_id"], {k: row[k] for k in ("query", "dataset", "response")})
        entry[f"{row['value']}_score"] = row["intensity"]
    return by_response.values()


def _order(raw: str, k: int) -> list[int] | None:
    """Return positions from 0, best first, of "[2, 1, 3]" or "2,1,3"; None if it is not a permutation of 1..k."""
    inner = re.fullmatch(r"\s*\[(.*?),?\s*\]\s*", raw, re.DOTALL)
    positions = [position.strip(" \t\r\n'\"").removesuffix(".0") for position in (inner[1] if inner else raw).split(",")]
    places = {str(place + 1): place for place in range(k)}
    order = [places[position] for position in positions if position in places]
    return order if len(positions) == len(set(order)) == k else None
