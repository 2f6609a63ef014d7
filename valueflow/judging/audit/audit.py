"""The audit of a judge: questions of known answer, put twice and in both presentations, and pass marks for the answers.

Texts of known rating are grouped in triples. A judge ranks the 3 pairs of a triple in both presentations, and all of it again
`repeats` times. That reveals four faults: answers that are wrong, that depend on the position, that form cycles, and that
change when the question is repeated. The widest pair of each triple is also put with the name of another value of its theory: a
judge whose answers stay the same knows right from wrong and not which value is asked about. Triples are the sampling unit of
every interval, since their answers share texts.

Shapes: V values, T triples, P = 3 pairs of a triple, S = 2 presentations (higher rated text first, last), R repeats,
N rated texts. won_TPSR is 1 if the higher rated text won, 0 if the lower did, nan if there is no valid answer; other_TS is so
for the widest pairs asked about another value.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valueflow.errors import InputError
from valueflow.judging.audit import measures
from valueflow.judging.audit.measures import Interval
from valueflow.judging.audit.result import (
    AccuracyGroup,
    AuditConfig,
    AuditFigure,
    AuditMetric,
    AuditResult,
    Contradiction,
)
from valueflow.judging.audit.triples import PAIRS, Triples, triples_of
from valueflow.judging.logprobs import single_answer
from valueflow.llm.configs import Price
from valueflow.llm.question import SMALLEST
from valueflow.records import ValueId, conform, digest
from valueflow.theories import operational

NUM_BINS = 5  # groups of pairs by distance
NUM_CONTRADICTIONS = 8  # listed in a result


class _Rule(NamedTuple):
    """Description of a metric; its mark is the field `setting` of AuditConfig."""

    name: str
    label: str
    setting: str
    unit: str
    chance: float | None
    explanation: str
    advice: str


RULES = [
    _Rule("broken", "Failed share", "max_broken", "windows", None, "share of windows without a valid answer",
          "Read the column error of the rankings: constrain the answers (structured output) or allow more tokens."),
    _Rule("order_consistency", "Order consistency", "min_order_consistency", "pairs shown both ways", 0.5,
          "share of pairs with the same winner when the texts swap positions",
          "Use a stronger model: answers that the position determines are not determined by the texts."),
    _Rule("position_effect", "Position effect", "max_position_effect", "answers", 0.0,
          "share of answers in which the text in the first position wins, less one half",
          "Use a stronger model; mirrored windows (windows.mirrored) cancel a mild effect, not one of this size."),
    _Rule("transitivity", "Transitivity", "min_transitivity", "triples", 0.75,
          "share of triples without a cycle, each pair decided by the majority of its answers (a tie counts half both ways)",
          "Use a stronger model: answers that form cycles do not fit on one axis."),
    _Rule("retest", "Retest reliability", "min_retest", "repeated questions", 0.5,
          "share of repeated questions with the same winner",
          "Lower the temperature: the answers are mostly noise."),
    _Rule("accuracy", "Accuracy", "min_accuracy", "answers", 0.5, "share of answers in which the higher rated text wins",
          "See accuracy by distance and by value: if distant pairs fail too, the judge does not know the meaning of the value; "
          "below one half, the ratings or the question may be reversed."),
    _Rule("specificity", "Value specificity", "min_specificity", "triples", 0.0,
          "accuracy on the widest pairs, less the share that the same text wins when another value of its theory is asked",
          "Use a judge that reads which value is asked about: this one would give a text the same place on every value."),
    _Rule("spearman", "Rank correlation", "min_spearman", "texts", 0.0,
          "rank correlation between the ratings and the order fitted to the answers, mean over values",
          "See accuracy: the order of all texts fails where the answers to pairs do."),
]  # fmt: skip


# Label, unit and explanation of the figures without a mark.
FIGURES = {
    "single_accuracy": ("Accuracy of single answers", "answers", "share of answers to a pair in one order, without "
                        "log-probabilities, that name the higher rated text"),
    "single_consistency": ("Order consistency of single answers", "pairs shown both ways",
                           "share of pairs with the same winner when the texts swap positions, without log-probabilities"),
    "debiased_accuracy": ("Accuracy after debiasing", "pairs", "share of pairs that the higher rated text wins by both orders "
                          "together: by their log-probabilities where the judge has them, else by votes; a tie counts half"),
    "other_value": ("Wins on another value", "answers", "share of answers in which the same higher rated text wins when "
                    "another value of its theory is asked about; one half if the judge reads the value"),
}  # fmt: skip


def plan_audit(rated: pa.Table, config: AuditConfig) -> pa.Table:
    """Return the `windows` rows of an audit; `rated` has the columns of RATED_TEXTS.

    The round is the repeat: a call cache must distinguish rounds, or retest measures the cache.

    Raises:
        InputError: a column is missing, a rating is not a number, a text is rated twice, a value has fewer than 3 ratings.
    """
    return _planned(triples_of(rated, config.triples, config.seed), config)


def audit_result(
    rated: pa.Table, rankings: pa.Table, config: AuditConfig, seconds: float, price: Price | None, created: str = ""
) -> AuditResult:
    """Return the result of a judge's audit.

    Invalid answers count in the metric `broken` and nowhere else; of a window that was answered twice, the first answer counts.

    Args:
        rated: rated texts, see RATED_TEXTS.
        rankings: the judge's answers to `plan_audit(rated, config)`.
        config: the one of the plan.
        seconds: time that the judge took.
        price: of the judge's tokens.
        created: date of the audit.

    Raises:
        InputError: as for `plan_audit`; there are answers of two judges, of windows outside the plan, or windows without any.
    """
    triples = triples_of(rated, config.triples, config.seed)
    rows = _answers(_planned(triples, config), rankings)
    num_own = triples.rows_T3.shape[0] * len(PAIRS) * 2 * config.repeats
    own, other = rows.slice(0, num_own), rows.slice(num_own)
    won_TPSR = _for_the_higher(_first_wins(own), config.repeats)
    other_TS = _first_wins(other).reshape(-1, 2)
    other_TS[:, 1] = 1 - other_TS[:, 1]
    intervals = {
        "broken": measures.broken(won_TPSR),
        "order_consistency": measures.order_consistency(won_TPSR),
        "position_effect": measures.position_effect(won_TPSR),
        "transitivity": measures.transitivity(won_TPSR),
        "retest": measures.retest(won_TPSR),
        "accuracy": measures.accuracy(won_TPSR),
        "specificity": measures.specificity(won_TPSR, other_TS),
        "spearman": measures.spearman(triples, won_TPSR),
    }
    metrics = [_metric(rule, intervals[rule.name], getattr(config, rule.setting)) for rule in RULES]
    contradictions = _contradictions(triples, won_TPSR)
    tokens = [pc.sum(rows[name]).as_py() or 0 for name in ("tokens_in", "tokens_out")]
    return AuditResult(
        judge=rows["judge"][0].as_py(),
        created=created,
        passed=all(metric.passed for metric in metrics),
        reasons=_reasons(metrics),
        advice=_advice(metrics),
        metrics=metrics,
        figures=_figures(own, won_TPSR, other_TS, config.repeats),
        by_distance=_by_distance(triples, won_TPSR),
        by_value=_by_value(triples, won_TPSR),
        contradictions=contradictions[:NUM_CONTRADICTIONS],
        num_contradictions=len(contradictions),
        num_triples=len(triples.rows_T3),
        num_windows=rows.num_rows,
        windows_per_second=rows.num_rows / seconds if seconds > 0 else None,
        tokens_in=tokens[0] / rows.num_rows,
        tokens_out=tokens[1] / rows.num_rows,
        cost_per_thousand=price.of(*tokens) / rows.num_rows * 1000 if price else None,
        currency=price.currency if price else "",
        config=config,
    )


def _planned(triples: Triples, config: AuditConfig) -> pa.Table:
    """Windows of every pair of every triple: higher rated text first, then last, `repeats` times each.

    Then those of the widest pair of every triple on another value, once each.
    """
    texts = triples.rated["text_id"].to_pylist()
    pairs = triples.rows_T3[:, PAIRS].reshape(-1, 2).tolist()
    values = [triples.values[number] for number in triples.value_T.repeat(len(PAIRS))]
    rows = [
        (digest("audit", value.theory, value.node, window, repeat), value.theory, value.node, window, repeat)
        for value, (a, b) in zip(values, pairs, strict=True)
        for window in ([texts[a], texts[b]], [texts[b], texts[a]])
        for repeat in range(config.repeats)
    ]
    for number, (lowest, _, highest) in zip(triples.value_T.tolist(), triples.rows_T3.tolist(), strict=True):
        value, a, b = triples.values[number], texts[highest], texts[lowest]
        other = _another(value, digest(config.seed, value, a, b))
        for window in ([a, b], [b, a]):
            rows.append((digest("audit other", value, other, window), other.theory, other.node, window, 0))
    names = ("window_id", "theory", "value", "text_ids", "round")
    return conform(pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), "windows")


def _another(value: ValueId, seed: str) -> ValueId:
    """Another operational value of the theory: what the text is about says nothing about it, on average."""
    others = [other for other in operational() if other.theory == value.theory and other != value]
    return others[int(seed, 16) % len(others)]


def _answers(windows: pa.Table, rankings: pa.Table) -> pa.Table:
    """One row of rankings for each window, in the order of the plan."""
    rankings = conform(rankings, "rankings")
    judges = sorted(pc.unique(rankings["judge"]).to_pylist())
    if len(judges) > 1:
        raise InputError(f"an audit is of one judge, but the rankings are of {len(judges)}: {', '.join(judges)}")
    row_of: dict[str, int] = {}
    for row, window in enumerate(rankings["window_id"].to_pylist()):
        row_of.setdefault(window, row)
    planned = windows["window_id"].to_pylist()
    unplanned = sorted(set(row_of) - set(planned))
    if unplanned:
        raise InputError(
            f"{len(unplanned)} answers are of windows outside the plan, the first is {unplanned[0]}; use the rated texts, "
            "triples, repeats and seed with which the windows were planned"
        )
    unanswered = [window for window in planned if window not in row_of]
    if unanswered:
        raise InputError(
            f"{len(unanswered)} of {len(planned)} windows have no row in rankings, the first is {unanswered[0]}; rank them all"
        )
    return rankings.take([row_of[window] for window in planned])


def _first_wins(rows: pa.Table) -> np.ndarray:
    """1 where the first position won, 0 where the second did, nan where there is no valid answer."""
    return 1 - pc.list_element(rows["order"], 0).to_numpy().astype(float)


def _for_the_higher(first_W: np.ndarray, repeats: int) -> np.ndarray:
    """Shares for the first position, in the order of the plan, as shares for the higher rated text by T, P, S, R."""
    first_TPSR = first_W.reshape(-1, len(PAIRS), 2, repeats)
    return np.stack([first_TPSR[:, :, 0], 1 - first_TPSR[:, :, 1]], axis=2)


def _figures(own: pa.Table, won_TPSR: np.ndarray, other_TS: np.ndarray, repeats: int) -> list[AuditFigure]:
    """What single answers, both orders together, and questions about another value say."""
    replies = zip(own["reply"].to_pylist(), own["order"].to_pylist(), strict=True)
    single_W = np.array([single_answer(reply, order) for reply, order in replies], float)
    single_TPSR = _for_the_higher(single_W, repeats)
    weight_W = np.clip(own["weight"].to_numpy().astype(float), SMALLEST, 1 - SMALLEST)
    share_W = np.where(_first_wins(own) == 1, weight_W, 1 - weight_W)
    share_TPSR = _for_the_higher(share_W, repeats)
    intervals = {
        "single_accuracy": measures.accuracy(single_TPSR),
        "single_consistency": measures.order_consistency(single_TPSR),
        "debiased_accuracy": measures.debiased_accuracy(won_TPSR, np.log(share_TPSR / (1 - share_TPSR))),
        "other_value": measures.accuracy(other_TS[:, None, :, None]),
    }
    figures = []
    for name, (label, unit, explanation) in FIGURES.items():
        estimate, low, high = (None if np.isnan(x) else float(x) for x in intervals[name][:3])
        n = intervals[name].n
        figures.append(
            AuditFigure(
                name=name,
                label=label,
                estimate=estimate,
                low=low,
                high=high,
                n=n,
                unit=unit,
                chance=0.5,
                explanation=explanation,
            )
        )
    return figures


def _metric(rule: _Rule, interval: Interval, mark: float) -> AuditMetric:
    """A metric with its mark; it fails if it cannot be measured, and the interval of accuracy must also exclude chance."""
    reached = abs(interval.estimate) <= mark if rule.setting.startswith("max_") else interval.estimate >= mark
    passed = bool(reached and (rule.name != "accuracy" or interval.low > 0.5))
    estimate, low, high = (None if np.isnan(x) else float(x) for x in interval[:3])
    return AuditMetric(
        name=rule.name, label=rule.label, estimate=estimate, low=low, high=high, n=interval.n, unit=rule.unit,
        chance=rule.chance, mark=mark, setting=rule.setting, passed=passed, explanation=rule.explanation,
    )  # fmt: skip


def _reasons(metrics: list[AuditMetric]) -> list[str]:
    """One sentence for each failed mark, and one for all metrics that could not be measured."""
    reasons = []
    for metric in metrics:
        if metric.passed or metric.estimate is None:
            continue
        measured = f"{metric.label} is {metric.estimate:.3f} (95 % interval {metric.low:.3f} to {metric.high:.3f})"
        if metric.at_most:
            reasons.append(f"{measured}, above {metric.setting} {metric.mark:g}: {metric.explanation}.")
        elif metric.estimate < metric.mark:
            reasons.append(f"{measured}, below {metric.setting} {metric.mark:g}: {metric.explanation}.")
        else:
            reasons.append(f"{measured}: the interval includes chance, 0.5; audit more triples or values.")
    unmeasured = [metric.label.lower() for metric in metrics if metric.estimate is None]
    return reasons + ([f"There are too few valid answers to measure {', '.join(unmeasured)}."] if unmeasured else [])


def _advice(metrics: list[AuditMetric]) -> list[str]:
    """Remedies for the failed marks that were measured, or advice on the use of a judge that passed."""
    failed = {metric.name for metric in metrics if not metric.passed and metric.estimate is not None}
    if all(metric.passed for metric in metrics):
        return ["Use this judge. Audit it again when its model, prompt, engine or temperature changes."]
    return ["Do not build or evaluate with this judge.", *(rule.advice for rule in RULES if rule.name in failed)]


def _by_distance(triples: Triples, won_TPSR: np.ndarray) -> list[AccuracyGroup]:
    """Accuracy in up to NUM_BINS groups of pairs, of equal size unless distances tie."""
    distance_TP = triples.distances()
    upper = np.unique(np.quantile(distance_TP, np.arange(1, NUM_BINS + 1) / NUM_BINS, method="inverted_cdf"))
    bin_TP = np.searchsorted(upper, distance_TP)
    groups = []
    for number in range(len(upper)):
        distances = distance_TP[bin_TP == number]
        low, high = distances.min(), distances.max()
        label = f"{low:.3g}" + (f" to {high:.3g}" if high > low else "")
        groups.append(_group(label, distance_TP, bin_TP == number, won_TPSR))
    return groups


def _by_value(triples: Triples, won_TPSR: np.ndarray) -> list[AccuracyGroup]:
    """Accuracy of each value."""
    masks = [np.repeat(triples.value_T[:, None] == number, len(PAIRS), 1) for number in range(len(triples.values))]
    return [_group(value, triples.distances(), mask, won_TPSR) for value, mask in zip(triples.values, masks, strict=True)]


def _group(label: str, distance_TP: np.ndarray, mask_TP: np.ndarray, won_TPSR: np.ndarray) -> AccuracyGroup:
    interval = measures.accuracy(np.where(mask_TP[:, :, None, None], won_TPSR, np.nan))
    estimate, low, high = (None if np.isnan(x) else float(x) for x in interval[:3])
    distance = float(distance_TP[mask_TP].mean())
    return AccuracyGroup(label=label, distance=distance, estimate=estimate, low=low, high=high, n=interval.n)


def _contradictions(triples: Triples, won_TPSR: np.ndarray) -> list[Contradiction]:
    """Pairs (once each) whose presentations disagree, the most distant pair of every value first."""
    rated, distance_TP = triples.rated.to_pylist(), triples.distances()
    differs_TPR = won_TPSR[:, :, 0] - won_TPSR[:, :, 1]  # 1: the first position won both, -1: the last did, 0: no contradiction
    pairs = [(i, p) for i, p in zip(*np.nonzero((np.abs(differs_TPR) == 1).any(axis=2)), strict=True)]
    turn: dict[int, int] = {}
    ordered = []
    for i, p in sorted(pairs, key=lambda pair: -distance_TP[pair]):
        turn[triples.value_T[i]] = turn.get(triples.value_T[i], -1) + 1
        ordered.append((turn[triples.value_T[i]], -distance_TP[i, p], i, p))
    contradictions = []
    for _, _, i, p in sorted(ordered):
        higher, lower = (rated[triples.rows_T3[i, side]] for side in PAIRS[p])
        differs_R = differs_TPR[i, p]
        place = 0 if differs_R[np.abs(differs_R) == 1][0] == 1 else 1
        ratings = {"higher_rating": higher["rating"], "lower_rating": lower["rating"]}
        value = triples.values[triples.value_T[i]]
        contradictions.append(Contradiction(value=value, higher=higher["text"], lower=lower["text"], place=place, **ratings))
    return contradictions
