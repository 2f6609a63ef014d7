"""One arm of a study: the effects of every value with simultaneous intervals, the types, and what refusals do to them.

Shapes: V values, Q queries, L = 5 levels, J contrasts (of all values), B draws of the queries, D draws of the anchors.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t

from valueflow.numerics.p_values import holm
from valueflow.steering.study.config import StudyConfig
from valueflow.steering.study.data import Scores, Study
from valueflow.steering.study.effects import ADJACENT, CONTRASTS, FAMILY, SCALE, Effects, contrasts, monotone, stratified
from valueflow.steering.study.judge_error import Imputed, rubin
from valueflow.steering.study.refusals import Reading, Rule, refusal_study
from valueflow.steering.study.simultaneous import critical_value, deviations, draw_queries, redrawn_means
from valueflow.steering.study.superiority import cliff, superiority
from valueflow.steering.study.verdicts import Interval, Verdict, model_regime, verdict

Row = dict[str, Any]
NAMES = tuple(CONTRASTS)
OUTER = (-2, 2)


class Arm(NamedTuple):
    """A model under one regime with the persona in one turn, scored by one judge."""

    model: str
    turn: str
    regime: str
    judge: str

    @property
    def key(self) -> tuple[str, str, str]:
        """The arm without its judge."""
        return self.model, self.turn, self.regime


class Fit(NamedTuple):
    """Effects of all values of an arm, value by value in the order of `NAMES`.

    Attributes:
        values: V values.
        y_VQL: mean score of every query and level, as scored.
        effects: J = V * len(NAMES) contrasts.
        imputed: the same with the error of the anchors; None where it is not known.
        count_BQ: draws of the queries.
        critical: critical value of simultaneous 95 % intervals of the family.
        critical_90: of 90 % intervals.
    """

    values: list[str]
    y_VQL: np.ndarray
    effects: Effects
    imputed: Imputed | None
    count_BQ: np.ndarray
    critical: float
    critical_90: float

    def interval(self, value: str, name: str) -> Interval:
        """Return the interval of a contrast; of the family simultaneous, else its own."""
        j = self.values.index(value) * len(NAMES) + NAMES.index(name)
        freedom = self.effects.freedom_J[j]
        error, wider = self.effects.error_J[j], 1.0
        if self.imputed is not None and not np.isnan(self.imputed.error_J[j]):
            error = self.imputed.error_J[j]
            wider = t.ppf(0.975, self.imputed.freedom_J[j]) / t.ppf(0.975, freedom)
        if name in FAMILY:
            critical, critical_90 = self.critical, self.critical_90
        else:
            critical, critical_90 = t.ppf(0.975, freedom), t.ppf(0.95, freedom)
        return Interval(float(self.effects.estimate_J[j]), float(error), float(critical * wider), float(critical_90 * wider))

    def missing_information(self, value: str, name: str) -> float | None:
        """Return the share of the variance that comes from the anchors; None where it is not known."""
        if self.imputed is None:
            return None
        share = self.imputed.missing_J[self.values.index(value) * len(NAMES) + NAMES.index(name)]
        return None if np.isnan(share) else float(share)


def fit(study: Study, judge: Scores, arm: Arm, config: StudyConfig, drawn: Mapping[str, np.ndarray]) -> Fit:
    """Return the effects of an arm.

    Args:
        study: generations and scores.
        judge: whose scores.
        arm: which arm.
        config: draws and seed.
        drawn: scores of the judge's texts under redrawn anchors, by value (D, T).
    """
    values = study.values(arm.key)
    y_VQL = np.stack([_levels(study, judge, arm, value) for value in values])
    d_QJ = np.concatenate([contrasts(y_QL) for y_QL in y_VQL], axis=1)
    effects = stratified(d_QJ, study.stratum_Q)
    count_BQ = draw_queries(study.stratum_Q, config.draws, np.random.default_rng(config.seed))
    family_J = np.tile([name in FAMILY for name in NAMES], len(values))
    of_family = Effects(*(column_J[family_J] for column_J in effects))
    t_BJ = deviations(d_QJ[:, family_J], study.stratum_Q, count_BQ, of_family)
    return Fit(
        values, y_VQL, effects, _imputed(study, judge, arm, values, drawn, effects), count_BQ,
        critical_value(t_BJ, 0.95), critical_value(t_BJ, 0.9),
    )  # fmt: skip


def _levels(study: Study, judge: Scores, arm: Arm, value: str) -> np.ndarray:
    columns = [_mean(study.responses(study.steered(arm.key, value, level), value, judge, ()).y_QR) for level in SCALE]
    return np.stack(columns, 1)


def _mean(y_QR: np.ndarray) -> np.ndarray:
    valid_QR = ~np.isnan(y_QR)
    total_Q = np.where(valid_QR, y_QR, 0.0).sum(1)
    return np.divide(total_Q, valid_QR.sum(1), out=np.full(len(y_QR), np.nan), where=valid_QR.any(1))


def _imputed(
    study: Study, judge: Scores, arm: Arm, values: Sequence[str], drawn: Mapping[str, np.ndarray], effects: Effects
) -> Imputed | None:
    """Effects under each draw of the anchors, combined; values that cannot be redrawn are NaN."""
    if not any(value in drawn for value in values):
        return None
    parts: list[Imputed] = []
    for value in values:
        part_J = slice(len(parts) * len(NAMES), (len(parts) + 1) * len(NAMES))
        if value not in drawn:
            parts.append(Imputed(*(np.full(len(NAMES), np.nan) for _ in range(3))))
            continue
        fits = []
        for score_T in drawn[value]:
            y_QL = _levels(study, judge.redrawn(value, score_T), arm, value)
            fits.append(stratified(contrasts(y_QL), study.stratum_Q))
        estimate_DJ, error_DJ = np.stack([f.estimate_J for f in fits]), np.stack([f.error_J for f in fits])
        parts.append(rubin(estimate_DJ, error_DJ, effects.freedom_J[part_J]))
    return Imputed(*map(np.concatenate, zip(*parts, strict=True)))


def effect_rows(arm: Arm, fitted: Fit) -> list[Row]:
    """Return a row of every value and contrast; adjacent levels with p-values by Holm over the arm."""
    p_J = fitted.effects.p_values()
    adjacent_J = np.tile([name in ADJACENT for name in NAMES], len(fitted.values))
    adjusted_J = np.full(len(p_J), np.nan)
    adjusted_J[adjacent_J] = holm(p_J[adjacent_J])
    rows = []
    for j, (value, name) in enumerate((value, name) for value in fitted.values for name in NAMES):
        interval = fitted.interval(value, name)
        if np.isnan(interval.estimate):
            continue
        rows.append({
            **arm._asdict(), "value": value, "contrast": name, "estimate": interval.estimate, "low": interval.low,
            "high": interval.high, "standard_error": interval.error, "simultaneous": name in FAMILY,
            "p_holm": None if np.isnan(adjusted_J[j]) else float(adjusted_J[j]), "queries": int(fitted.effects.num_J[j]),
            "missing_information": fitted.missing_information(value, name),
        })  # fmt: skip
    return rows


def refusal_rows(
    study: Study, judge: Scores, arm: Arm, fitted: Fit, config: StudyConfig, reach: Mapping[str, tuple[float, float]]
) -> list[Row]:
    """Return a row of every value, outer level and reading of its non-answers."""
    rows = []
    for value in fitted.values:
        default = study.responses(study.steered(arm.key, value, 0), value, judge, config.non_answers)
        for level in OUTER:
            cell = study.steered(arm.key, value, level)
            if cell not in study.cells:
                continue
            rule = Rule(config.margin, 1 if level > 0 else -1, fitted.critical, fitted.critical_90, reach[value])
            responses = study.responses(cell, value, judge, config.non_answers)
            result = refusal_study(responses, default, study.stratum_Q, fitted.count_BQ, rule)
            rows += [_refusal_row(arm, value, level, reading, result._asdict()) for reading in result.readings]
    return rows


def _refusal_row(arm: Arm, value: str, level: int, reading: Reading, result: Row) -> Row:
    return {
        **arm._asdict(), "value": value, "level": level, "reading": reading.name, "low": reading.low, "high": reading.high,
        "interval_low": reading.interval_low, "interval_high": reading.interval_high, "side": reading.side,
        "verdict": result["verdict"], "tipping_point": result["tipping"], "share": result["share"],
        "share_default": result["share_default"], "mcnemar_p": result["mcnemar_p"],
    }  # fmt: skip


def verdict_rows(
    study: Study, judge: Scores, arm: Arm, fitted: Fit, config: StudyConfig, reach: Mapping[str, tuple[float, float]],
    effects: Sequence[Row], refusals: Sequence[Row],
) -> list[Row]:  # fmt: skip
    """Return a row of every value: its type at every margin, what it rests on, and effects without a unit.

    `effects` and `refusals` are the rows of `effect_rows` and `refusal_rows`.
    """
    steps = Counter(
        row["value"] for row in effects if row["p_holm"] is not None and row["p_holm"] < 0.05 and row["estimate"] > 0
    )
    depends = {(row["value"], row["level"]): row["verdict"] for row in refusals}
    rows = []
    for v, value in enumerate(fitted.values):
        of_value = _verdict(fitted, value, config.margin, reach[value], len(study.query_ids))
        order = monotone(fitted.y_VQL[v], study.stratum_Q)
        shifts = {level: _superiority(study, judge, arm, value, level) for level in OUTER}
        rows.append({
            **arm._asdict(), "value": value, "type": of_value.type, "plus": of_value.plus, "minus": of_value.minus,
            "reason": of_value.reason, "queries_needed": of_value.needed,
            **{f"type_margin_{m:g}": _verdict(fitted, value, m, reach[value], len(study.query_ids)).type
               for m in config.other_margins},
            "refusals_plus": depends.get((value, 2)), "refusals_minus": depends.get((value, -2)),
            "levels_told_apart": steps[value] + 1, "tau": order.tau, "tau_low": order.low, "tau_high": order.high,
            "share_against": order.against, "page_p": order.page_p,
            "superiority_plus": _mean_of(shifts[2], study), "superiority_minus": _mean_of(shifts[-2], study),
            "missing_information": fitted.missing_information(value, "effect +2"),
            "reach_low": reach[value][0], "reach_high": reach[value][1],
        })  # fmt: skip
    return rows


def _verdict(fitted: Fit, value: str, margin: float, reach: tuple[float, float], queries: int) -> Verdict:
    plus, minus, default = (fitted.interval(value, name) for name in ("effect +2", "effect -2", "default"))
    return verdict(plus, minus, default, margin, reach, queries)


def _superiority(study: Study, judge: Scores, arm: Arm, value: str, level: int) -> np.ndarray:
    """Probability that a response of the level scores higher than one of the default, by query: mean over pairs."""
    cells = study.steered(arm.key, value, level), study.steered(arm.key, value, 0)
    (y_QR, sd_QR), (y0_QR, sd0_QR) = (
        (study.responses(cell, value, judge, ()).y_QR, study.deviations(cell, value, judge)) for cell in cells
    )
    pairs = [
        superiority(y_QR[:, r], y0_QR[:, s], sd_QR[:, r], sd0_QR[:, s])
        for r in range(y_QR.shape[1])
        for s in range(y0_QR.shape[1])
    ]
    return _mean(np.stack(pairs, 1))


def _mean_of(p_Q: np.ndarray, study: Study) -> float | None:
    estimate = float(stratified(p_Q[:, None], study.stratum_Q).estimate_J[0])
    return None if np.isnan(estimate) else estimate


def model_row(study: Study, judge: Scores, arm: Arm, fitted: Fit, config: StudyConfig) -> Row:
    """Return the regime of the model: mean over values and polarities of Cliff's delta in the intended direction."""
    shift_QN = np.stack([
        np.sign(level) * cliff(_superiority(study, judge, arm, value, level))
        for value in fitted.values for level in OUTER if study.steered(arm.key, value, level) in study.cells
    ], 1)  # fmt: skip
    mean_Q = _mean(shift_QN)[:, None]
    effects = stratified(mean_Q, study.stratum_Q)
    draws_B = redrawn_means(mean_Q, study.stratum_Q, fitted.count_BQ)[0][:, 0]
    regime = model_regime(float(effects.estimate_J[0]), draws_B, config.regime_edges, config.regime_labels)
    return {
        **arm._asdict(), "regime_of_model": regime.label, "shift": regime.estimate, "low": regime.low, "high": regime.high,
        **{f"probability {label}": share for label, share in regime.probabilities.items()},
        "values": len(fitted.values), "queries": len(study.query_ids), "critical": fitted.critical,
    }  # fmt: skip
