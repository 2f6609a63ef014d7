"""Tables beside the arms: outcomes, controls, the echo of the prompt, doses of user texts, side effects, composition.

Shapes: V steered values, W scored values, Q queries, L levels.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from valueflow.numerics.missing import finite_or_none
from valueflow.records import ValueId
from valueflow.steering.study.arms import OUTER, Arm, Fit, Row
from valueflow.steering.study.composition import Composition, compose
from valueflow.steering.study.config import StudyConfig
from valueflow.steering.study.data import STEERED, Cell, Scores, Study
from valueflow.steering.study.effects import SCALE, stratified
from valueflow.steering.study.refusals import rogan_gladen
from valueflow.steering.study.side_effects import dose_curve, goal, side_effects
from valueflow.steering.study.simultaneous import draw_queries

MIN_COMPLETE = 4  # queries with all cells of a pair
NOT_SCORED, ONE_ORDER = "not scored", "one order only"  # instead of the name of a composition
OUTCOMES = ("answer", "hedge", "refusal", "broken")
# Each control, what it is compared with, and what the difference shows.
CONTROLS = (
    ("neutral_persona", "bare", "any persona at all"),
    ("irrelevant_persona", "neutral_persona", "length of a persona"),
    ("no_refusal", "bare", "the order not to refuse"),
)


def scored_means(study: Study, cell: Cell, scores: Scores) -> np.ndarray:
    """Return the mean score of a cell's responses to every query on every value of a judge (Q, W); NaN where there is none."""
    rows = study.cells.get(cell, np.empty(0, int))
    index = np.array([scores.text_index.get(study.text_ids[row], -1) for row in rows], int)
    score_gW = np.where(index[:, None] >= 0, scores.score_TW[index], np.nan) if len(rows) else np.empty((0, len(scores.values)))
    valid_gW = ~np.isnan(score_gW)
    total_QW = np.zeros((len(study.query_ids), len(scores.values)))
    count_QW = np.zeros_like(total_QW)
    np.add.at(total_QW, study.query_G[rows], np.where(valid_gW, score_gW, 0.0))
    np.add.at(count_QW, study.query_G[rows], valid_gW)
    return np.divide(total_QW, count_QW, out=np.full_like(total_QW, np.nan), where=count_QW > 0)


def spreads(study: Study, arm: Arm, scores: Scores) -> np.ndarray:
    """Return the standard deviation over queries of the default's scores on every value (W,): the unit of an axis."""
    default_QW = scored_means(study, study.control(arm.key, "neutral_persona"), scores)
    spread_W = np.array([x[~np.isnan(x)].std(ddof=1) if (~np.isnan(x)).sum() > 1 else np.nan for x in default_QW.T])
    return np.where(spread_W > 0, spread_W, np.nan)


def outcome_rows(study: Study, config: StudyConfig) -> list[Row]:
    """Return the shares of the four outcomes and of truncated replies, and the mean length, by condition and level.

    With `config.detector` also the share of non-answers behind the detector's errors (Rogan and Gladen), with its interval.
    """
    finish = study.generations["finish_reason"].to_pylist()
    tokens = study.generations["tokens_out"].fill_null(0).to_numpy()
    groups: dict[tuple[str, str, str, str, str], list[np.ndarray]] = defaultdict(list)
    for cell, rows in study.cells.items():
        level = f"{cell.levels[0]:+d}" if len(cell.levels) == 1 else ""
        groups[cell.model, cell.turn, cell.regime, cell.condition, level].append(rows)
    table = []
    for (model, turn, regime, condition, level), parts in sorted(groups.items(), key=lambda g: (*g[0][:4], int(g[0][4] or 0))):
        rows = np.concatenate(parts)
        counts = Counter(study.outcomes[rows].tolist())
        corrected: Row = {}
        if config.detector:
            found = sum(counts[outcome] for outcome in config.non_answers)
            rate = rogan_gladen(found, len(rows), config.detector.sensitivity, config.detector.specificity)
            corrected = {"no_answer": rate.estimate, "no_answer_low": rate.low, "no_answer_high": rate.high}
        table.append({
            "model": model, "turn": turn, "regime": regime, "condition": condition, "level": level, "responses": len(rows),
            **{outcome: counts[outcome] / len(rows) for outcome in OUTCOMES},
            "truncated": float(np.mean([finish[row] == "length" for row in rows])), "tokens_out": float(tokens[rows].mean()),
            **corrected,
        })  # fmt: skip
    return table


def control_rows(study: Study, arm: Arm, scores: Scores, values: Sequence[str]) -> list[Row]:
    """Return what every control changes in the score of every value: what effects against a bare query would mix in."""
    rows = []
    for condition, against, shows in CONTROLS:
        cells = study.control(arm.key, condition), study.control(arm.key, against)
        if not all(cell in study.cells for cell in cells):
            continue
        first_QW, second_QW = (scored_means(study, cell, scores) for cell in cells)
        effects = stratified(first_QW - second_QW, study.stratum_Q)
        low_W, high_W = effects.interval()
        for w, value in enumerate(scores.values):
            if value in values and not np.isnan(effects.estimate_J[w]):
                rows.append({
                    **arm._asdict(), "value": str(value), "condition": condition, "against": against, "shows": shows,
                    "estimate": float(effects.estimate_J[w]), "low": float(low_W[w]), "high": float(high_W[w]),
                })  # fmt: skip
    return rows


def echo_rows(study: Study, arm: Arm, scores: Scores, fitted: Fit) -> list[Row]:
    """Return the effects of the outer levels on texts in which the echo of the prompt is masked, beside those as scored."""
    rows = []
    for value in fitted.values if study.masked else ():
        default_QR = study.responses(study.steered(arm.key, value, 0), value, scores, ()).y_QR
        for level in OUTER:
            cell = study.steered(arm.key, value, level)
            pair = [study.responses(cell, value, scores, (), masked).y_QR for masked in (False, True)]
            d_QJ = np.stack([_row_means(y_QR) - _row_means(default_QR) for y_QR in pair], 1)
            d_QJ = np.column_stack([d_QJ, d_QJ[:, 1] - d_QJ[:, 0]])
            effects = stratified(d_QJ, study.stratum_Q)
            low_J, high_J = effects.interval()
            if not np.isnan(effects.estimate_J).any():
                names = ("as_scored", "masked", "change")
                numbers = zip(names, effects.estimate_J.tolist(), low_J.tolist(), high_J.tolist(), strict=True)
                rows.append({
                    **arm._asdict(), "value": value, "level": level,
                    **{f"{name}{end}": x for name, *xs in numbers for end, x in zip(("", "_low", "_high"), xs, strict=True)},
                })  # fmt: skip
    return rows


def _row_means(y_QR: np.ndarray) -> np.ndarray:
    valid_QR = ~np.isnan(y_QR)
    total_Q = np.where(valid_QR, y_QR, 0.0).sum(1)
    return np.divide(total_Q, valid_QR.sum(1), out=np.full(len(y_QR), np.nan), where=valid_QR.any(1))


def dose_rows(study: Study, arm: Arm, scores: Scores, fitted: Fit) -> list[Row]:
    """Return requested and achieved intensity of every value and level of regime user_texts, with the slope of the curve."""
    rows = []
    requested_G = study.generations["requested"].to_numpy(zero_copy_only=False)
    for v, value in enumerate(fitted.values if arm.regime == "user_texts" else ()):
        columns = [
            (level, column, float(np.nanmean(requested_G[study.cells[cell]])))
            for column, level in enumerate(SCALE)
            if level and (cell := study.steered(arm.key, value, level)) in study.cells
            and not np.isnan(requested_G[study.cells[cell]]).all()
        ]  # fmt: skip
        if len(columns) < 2:
            continue
        requested_L = np.array([requested for _, _, requested in columns])
        curve = dose_curve(requested_L, fitted.y_VQL[v][:, [column for _, column, _ in columns]], study.stratum_Q)
        for (level, _, _), (requested, achieved, low, high) in zip(columns, curve.rows, strict=True):
            rows.append({
                **arm._asdict(), "value": value, "level": level, "requested": requested, "achieved": achieved, "low": low,
                "high": high, "slope": curve.slope[0], "slope_low": curve.slope[1], "slope_high": curve.slope[2],
            })  # fmt: skip
    return rows


def side_effect_rows(study: Study, arm: Arm, scores: Scores, fitted: Fit) -> tuple[list[Row], list[Row]]:
    """Return the side-effect matrix of each outer level, and how far each shift misses its target."""
    control = study.control(arm.key, "neutral_persona")
    default_QW, spread_W = scored_means(study, control, scores), spreads(study, arm, scores)
    cheap = study.cheap
    index = [cheap.values.index(w) if w in cheap.values else -1 for w in scores.values] if cheap else []
    cheap_default_QW = scored_means(study, control, cheap)[:, index] if cheap else None
    known_W = np.array([i >= 0 for i in index])
    rows, goals = [], []
    for level in OUTER:
        cells = [study.steered(arm.key, value, level) for value in fitted.values]
        trusted_VWQ = np.stack([(scored_means(study, cell, scores) - default_QW).T for cell in cells])
        cheap_VWQ = None
        if cheap is not None and cheap_default_QW is not None:
            cheap_VWQ = np.stack([(scored_means(study, cell, cheap)[:, index] - cheap_default_QW).T for cell in cells])
            cheap_VWQ[:, ~known_W] = np.nan
        matrix = side_effects(trusted_VWQ, cheap_VWQ, study.stratum_Q)
        for v, w in np.ndindex(matrix.estimate_VW.shape):
            if not np.isnan(matrix.estimate_VW[v, w]):
                rows.append({
                    **arm._asdict(), "steered": fitted.values[v], "level": level, "scored": str(scores.values[w]),
                    "estimate": float(matrix.estimate_VW[v, w]), "low": float(matrix.low_VW[v, w]),
                    "high": float(matrix.high_VW[v, w]), "standardized": finite_or_none(matrix.estimate_VW[v, w] / spread_W[w]),
                    "p_fdr": finite_or_none(matrix.adjusted_VW[v, w]), "judged": int(matrix.trusted_VW[v, w]),
                    "cheap_weight": float(matrix.weight_VW[v, w]),
                })  # fmt: skip
        shifts = trusted_VWQ if cheap_VWQ is None else np.where(np.isnan(trusted_VWQ), cheap_VWQ, trusted_VWQ)
        goals += _goal_rows(study, arm, scores, fitted, level, shifts, spread_W, default_QW)
    return rows, goals


def _goal_rows(
    study: Study, arm: Arm, scores: Scores, fitted: Fit, level: int, shift_VWQ: np.ndarray, spread_W: np.ndarray,
    default_QW: np.ndarray,
) -> list[Row]:  # fmt: skip
    rows = []
    requested_G = study.generations["requested"].to_numpy(zero_copy_only=False)
    for v, value in enumerate(fitted.values):
        complete_W = ~np.isnan(shift_VWQ[v]).any(1) & ~np.isnan(spread_W)
        own = scores.values.index(value)  # type: ignore[arg-type]
        if complete_W.sum() < 2 or not complete_W[own]:
            continue
        shift_QW = (shift_VWQ[v][complete_W] / spread_W[complete_W, None]).T
        direction_W = np.zeros(len(scores.values))
        direction_W[own] = np.sign(level)
        cell = study.steered(arm.key, value, level)
        requested = requested_G[study.cells[cell]] if cell in study.cells else np.array([np.nan])
        has_target = arm.regime == "user_texts" and not np.isnan(requested).all()
        if has_target:
            default = float(stratified(default_QW[:, [own]], study.stratum_Q).estimate_J[0])
            direction_W[own] = (float(np.nanmean(requested)) - default) / spread_W[own]
        result = goal(shift_QW, direction_W[complete_W], study.stratum_Q, fitted.count_BQ, has_target)
        row: Row = {**arm._asdict(), "value": value, "level": level, "scored_values": int(complete_W.sum())}
        for name, triple in result._asdict().items():
            row |= {f"{name}{end}": finite_or_none(x) for end, x in zip(("", "_low", "_high"), triple, strict=True)}
        rows.append(row)
    return rows


def composition_rows(study: Study, scores: Scores, config: StudyConfig, reach: Mapping[str, tuple[float, float]]) -> list[Row]:
    """Return how the two values of every pair compose, for pairs whose values were also run alone in the same turn.

    A pair whose responses are not scored on both values has a row with the name "not scored": evaluations with pairs=about
    score a response on its own values alone.
    """
    pairs: dict[tuple[str, str, str, tuple[str, str], tuple[int, int]], dict[tuple[str, ...], Cell]] = defaultdict(dict)
    for cell in study.cells:
        if len(cell.values) == 2:
            (a, level_a), (b, level_b) = sorted(zip(cell.values, cell.levels, strict=True))
            pairs[cell.model, cell.turn, cell.regime, (a, b), (level_a, level_b)][cell.values] = cell
    count_BQ = draw_queries(study.stratum_Q, config.draws, np.random.default_rng(config.seed))
    rows = []
    for (model, turn, regime, (a, b), levels), orders in sorted(pairs.items()):
        arm = Arm(model, turn, regime, scores.judge)
        single = [_single(study, arm, value, level) for value, level in zip((a, b), levels, strict=True)]
        both = [orders.get((a, b)), orders.get((b, a))]
        if None in single:
            continue  # a set of two values of regime multi_value, without its parts
        # A single order stands for both; the row says so and names nothing.
        cells = [study.control(arm.key, "neutral_persona"), *single, *(cell or next(c for c in both if c) for cell in both)]
        y_QCX, spread_X = _standardized(study, arm, scores, cells, (a, b))
        row: Row = {**arm._asdict(), "a": a, "b": b, "level_a": levels[0], "level_b": levels[1]}
        if (~np.isnan(y_QCX).any((1, 2))).sum() < MIN_COMPLETE:
            rows.append(row | {"name": NOT_SCORED})
            continue
        reach_X2 = np.array([reach[a], reach[b]]) / spread_X[:, None]
        result = compose(y_QCX, study.stratum_Q, count_BQ, config.composition_margin, reach_X2)
        rows.append(row | _composition_numbers(result, np.nanmean(y_QCX, 0), both))
    return rows


def _single(study: Study, arm: Arm, value: str, level: int) -> Cell | None:
    """The cell of one value alone: in the form of the pair where that was run, else by a persona or texts of the same turn."""
    regimes = (arm.regime, *STEERED)
    cells = [Cell(arm.model, arm.turn, regime, "value", (value,), (level,)) for regime in regimes]
    return next((cell for cell in cells if cell in study.cells), None)


def _standardized(
    study: Study, arm: Arm, scores: Scores, cells: Sequence[Cell | None], values: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of cells on the axes of two values (Q, C, X) in standard deviations of the default, and these (X,)."""
    if any(value not in scores.values for value in values):
        return np.full((len(study.query_ids), len(cells), 2), np.nan), np.ones(2)
    axes = [scores.values.index(ValueId(value)) for value in values]
    spread_X = spreads(study, arm, scores)[axes]
    return np.stack([scored_means(study, cell, scores)[:, axes] / spread_X for cell in cells if cell], 1), spread_X


def _composition_numbers(result: Composition, mean_CX: np.ndarray, orders: Sequence[Cell | None]) -> Row:
    one_order = None in orders
    row: Row = {
        "name": ONE_ORDER if one_order else result.name, "dominant": "undetermined" if one_order else result.dominant,
        "weight_a": result.weights[0], "weight_b": result.weights[1], "angle": finite_or_none(result.angle),
        "ratio": finite_or_none(result.ratio), "hotelling_p": finite_or_none(result.hotelling_p),
        "excluded": "|".join(result.excluded),
    }  # fmt: skip
    intervals = {"interaction_a": result.interaction[0], "interaction_b": result.interaction[1], "order": result.order}
    triples = {name: (x.estimate, x.low, x.high) for name, x in intervals.items()}
    triples |= {"dominance": result.dominance, "strongest_over_sum": result.strongest_over_sum}
    for name, triple in triples.items():
        row |= {f"{name}{end}": finite_or_none(x) for end, x in zip(("", "_low", "_high"), triple, strict=True)}
    for c, cell in enumerate(("none", "a", "b", "ab", "ba")):
        row |= {f"mean_{cell}_on_a": finite_or_none(mean_CX[c, 0]), f"mean_{cell}_on_b": finite_or_none(mean_CX[c, 1])}
    return row


def multi_rows(study: Study, scores: Scores) -> list[Row]:
    """Return the shift of every scored value under every set of two or more values, mean over their orders in the prompt."""
    sets: dict[tuple[str, str, str, tuple[tuple[str, int], ...]], list[Cell]] = defaultdict(list)
    for cell in study.cells:
        if len(cell.values) >= 2:
            sets[cell.model, cell.turn, cell.regime, tuple(sorted(zip(cell.values, cell.levels, strict=True)))].append(cell)
    rows = []
    for (model, turn, regime, members), cells in sorted(sets.items()):
        arm = Arm(model, turn, regime, scores.judge)
        default_QW = scored_means(study, study.control(arm.key, "neutral_persona"), scores)
        d_QW = sum(scored_means(study, cell, scores) for cell in cells) / len(cells) - default_QW
        effects = stratified(d_QW, study.stratum_Q)
        low_W, high_W = effects.interval()
        spread_W = spreads(study, arm, scores)
        for w, value in enumerate(scores.values):
            if not np.isnan(effects.estimate_J[w]):
                rows.append({
                    **arm._asdict(), "set": " + ".join(f"{v} {x:+d}" for v, x in members), "size": len(members),
                    "orders": len(cells),
                    "value": str(value), "level": dict(members).get(value), "estimate": float(effects.estimate_J[w]),
                    "low": float(low_W[w]), "high": float(high_W[w]),
                    "standardized": finite_or_none(effects.estimate_J[w] / spread_W[w]),
                })  # fmt: skip
    return rows
