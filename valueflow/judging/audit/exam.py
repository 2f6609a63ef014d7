"""Is this judge fit to judge? Questions of known answer, asked twice and both ways round, and pass marks for the answers.

Texts of known rating are put together in triples. A judge is asked about the 3 pairs of a triple in both presentations, and all
of it again `repeats` times. That shows four different faults: answers that are wrong, that depend on the place shown, that go
in circles, and that are not repeated. Triples are the unit of chance in every interval, since their answers share texts.

Shapes: V values, T triples, P = 3 pairs of a triple, S = 2 presentations (higher rated text first, last), R repeats,
N known texts. won_TPSR is 1 where the higher rated text won, 0 where the lower did, nan where there is no answer.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from valueflow.config import Config
from valueflow.errors import InputError
from valueflow.judging.audit import measures
from valueflow.judging.audit.measures import Interval
from valueflow.judging.audit.triples import PAIRS, Triples, triples_of
from valueflow.llm.configs import Price
from valueflow.records import conform, digest

NUM_BINS = 5  # of distance
NUM_CONTRADICTIONS = 8


class AuditConfig(Config):
    """How much a judge is asked, and the marks it must reach.

    The marks lie between judges that must fail and one that must pass. A coin flip has accuracy, order consistency and retest
    0.5, transitivity 0.75 and rank correlation 0; a judge that always takes one place has order consistency 0 and position
    effect 0.5. The simulated judge of sharpness 1 and spread 3, which is none of the sharpest, has about 0.9, 0.85, 0.85, 0.98
    and 0.96, and 0.06 where the first place gains 1 nat. So a mild position effect is forgiven (mirrored windows cancel it in
    a build), answers that the place decides are not.

    The marks of knowledge are low on purpose: triples hold near pairs on which people disagree too, and ratings such as
    strength 1, 2, 3 are coarse. They ask for clearly more than chance and no more; the encoder judge of the tiny configs, the
    weakest that we ship, has accuracy 0.63 (0.60 to 0.66) and rank correlation 0.35 (0.29 to 0.40) on the sample. Raise them
    for a build that matters.
    """

    triples: int = Field(12, ge=4, le=100, description="of texts per value, at most; no pair is in two of them")
    repeats: int = Field(2, ge=2, le=10, description="how often every question is asked")
    seed: int = 0
    min_accuracy: float = Field(
        0.6, ge=0, le=1, description="share of answers in which the higher rated text wins; must also be surely above 0.5"
    )
    min_spearman: float = Field(0.3, ge=-1, le=1, description="rank correlation of ratings and fitted order, mean over values")
    min_order_consistency: float = Field(0.65, ge=0, le=1, description="same winner when the two texts change places")
    max_position_effect: float = Field(0.15, ge=0, le=0.5, description="|share of answers won by the first place - 0.5|")
    min_transitivity: float = Field(0.9, ge=0, le=1, description="share of triples without a cycle; at random 0.75")
    min_retest: float = Field(0.7, ge=0, le=1, description="same winner when the same question is asked again")
    max_broken: float = Field(0.05, ge=0, le=1, description="share of windows without a usable answer")


class AuditMetric(Config):
    """One property of a judge with its 95 % interval, what a coin flip gets, and the mark; null where it cannot be measured."""

    name: str
    label: str
    estimate: float | None
    low: float | None
    high: float | None
    n: int = Field(description="of `unit`")
    unit: str
    chance: float | None
    mark: float
    setting: str = Field(description="field of AuditConfig that holds the mark")
    passed: bool
    explanation: str

    @property
    def at_most(self) -> bool:
        """Whether the mark is an upper limit."""
        return self.setting.startswith("max_")


class Group(Config):
    """Accuracy of the answers about some pairs: those of one distance or of one value."""

    label: str
    distance: float = Field(description="mean difference of the ratings of a pair")
    estimate: float | None
    low: float | None
    high: float | None
    n: int = Field(description="answers")


class Contradiction(Config):
    """A pair that got another winner when its texts changed places: `place` (0 or 1) won both times."""

    value: str
    higher: str
    lower: str
    higher_rating: float
    lower_rating: float
    place: int


class AuditResult(Config):
    """Whether a judge may judge, and why; `advice` says what to do now. Speed and cost are per window asked."""

    judge: str
    created: str
    passed: bool
    reasons: list[str]
    advice: list[str]
    metrics: list[AuditMetric]
    by_distance: list[Group]
    by_value: list[Group]
    contradictions: list[Contradiction]
    num_contradictions: int
    num_triples: int
    num_windows: int
    windows_per_second: float | None
    tokens_in: float
    tokens_out: float
    cost_per_thousand: float | None = Field(description="windows; null without a price")
    currency: str
    config: AuditConfig

    def metric(self, name: str) -> AuditMetric:
        """Return the metric of that name."""
        return next(metric for metric in self.metrics if metric.name == name)


class _Rule(NamedTuple):
    """What is measured, in words; the mark is the field `setting` of AuditConfig."""

    name: str
    label: str
    setting: str
    unit: str
    chance: float | None
    explanation: str
    advice: str


RULES = [
    _Rule("broken", "Broken share", "max_broken", "windows", None, "share of windows without a usable answer",
          "Read the column error of the rankings: constrain the answers (structured output) or give them more room."),
    _Rule("order_consistency", "Order consistency", "min_order_consistency", "pairs shown both ways", 0.5,
          "share of pairs that get the same winner when the texts change places",
          "Ask a stronger model: what the place shown decides is not decided by the texts."),
    _Rule("position_effect", "Position effect", "max_position_effect", "answers", 0.0,
          "share of answers in which the text shown first wins, less one half",
          "Ask a stronger model; mirrored windows (windows.mirrored) cancel a mild effect, not one of this size."),
    _Rule("transitivity", "Transitivity", "min_transitivity", "triples", 0.75,
          "share of triples without a cycle, each pair decided by the majority of its answers (a tie counts half both ways)",
          "Ask a stronger model: answers that go in circles do not fit on one axis."),
    _Rule("retest", "Retest reliability", "min_retest", "questions asked again", 0.5,
          "share of repeated questions that get the same winner",
          "Lower the temperature: the answers are mostly noise."),
    _Rule("accuracy", "Accuracy", "min_accuracy", "answers", 0.5, "share of answers in which the higher rated text wins",
          "Look at accuracy by distance and by value: where far pairs fail too, the judge does not know what the value means; "
          "below one half, the ratings or the question may be the wrong way round."),
    _Rule("spearman", "Rank correlation", "min_spearman", "texts", 0.0,
          "rank correlation between the ratings and the order fitted to the answers, mean over values",
          "See accuracy: the order of all texts fails where the answers about pairs do."),
]  # fmt: skip


def plan(known: pa.Table, config: AuditConfig) -> pa.Table:
    """Return the `windows` rows of an audit; `known` has the columns of KNOWN.

    The round is the repeat: a cache of replies must tell rounds apart, or retest measures the cache.

    Raises:
        InputError: a column is missing, a rating is not a number, a text is rated twice, a value has fewer than 3 ratings.
    """
    return _windows(triples_of(known, config.triples, config.seed), config.repeats)


def examine(
    known: pa.Table, rankings: pa.Table, config: AuditConfig, seconds: float, price: Price | None, created: str = ""
) -> AuditResult:
    """Return the verdict on the judge that gave these answers to `plan(known, config)` in so many seconds.

    Broken answers count as broken and nowhere else; of a window answered twice the first answer counts.

    Raises:
        InputError: as for plan; there are answers of two judges, of windows outside the plan, or windows without any.
    """
    triples = triples_of(known, config.triples, config.seed)
    rows = _answers(_windows(triples, config.repeats), rankings)
    won_TPSR = _won(rows, config.repeats)
    found = {
        "broken": measures.broken(won_TPSR),
        "order_consistency": measures.order_consistency(won_TPSR),
        "position_effect": measures.position_effect(won_TPSR),
        "transitivity": measures.transitivity(won_TPSR),
        "retest": measures.retest(won_TPSR),
        "accuracy": measures.accuracy(won_TPSR),
        "spearman": measures.spearman(triples, won_TPSR),
    }
    metrics = [_metric(rule, found[rule.name], getattr(config, rule.setting)) for rule in RULES]
    contradictions = _contradictions(triples, won_TPSR)
    tokens = [pc.sum(rows[name]).as_py() or 0 for name in ("tokens_in", "tokens_out")]
    return AuditResult(
        judge=rows["judge"][0].as_py(),
        created=created,
        passed=all(metric.passed for metric in metrics),
        reasons=_reasons(metrics),
        advice=_advice(metrics),
        metrics=metrics,
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


def _windows(triples: Triples, repeats: int) -> pa.Table:
    """Every pair of every triple, higher rated text first, then last, `repeats` times."""
    texts = triples.known["text_id"].to_pylist()
    pairs = triples.rows_T3[:, PAIRS].reshape(-1, 2).tolist()
    theory, value = zip(*(triples.values[number].split(":", 1) for number in triples.value_T.repeat(len(PAIRS))), strict=True)
    rows = [
        (digest("audit", theory[i], value[i], shown, repeat), theory[i], value[i], shown, repeat)
        for i, (a, b) in enumerate(pairs)
        for shown in ([texts[a], texts[b]], [texts[b], texts[a]])
        for repeat in range(repeats)
    ]
    names = ("window_id", "theory", "value", "text_ids", "round")
    return conform(pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), "windows")


def _answers(windows: pa.Table, rankings: pa.Table) -> pa.Table:
    """One row of rankings for each window, in the order of the plan."""
    rankings = conform(rankings, "rankings")
    judges = sorted(pc.unique(rankings["judge"]).to_pylist())
    if len(judges) > 1:
        raise InputError(f"an audit is of one judge, the rankings are of {len(judges)}: {', '.join(judges)}")
    row_of: dict[str, int] = {}
    for row, window in enumerate(rankings["window_id"].to_pylist()):
        row_of.setdefault(window, row)
    asked = windows["window_id"].to_pylist()
    strange = sorted(set(row_of) - set(asked))
    if strange:
        raise InputError(
            f"{len(strange)} answers are of windows outside the plan, the first is {strange[0]}; examine needs the known "
            "texts, triples, repeats and seed that the windows were planned with"
        )
    silent = [window for window in asked if window not in row_of]
    if silent:
        raise InputError(
            f"{len(silent)} of {len(asked)} windows have no row in rankings, the first is {silent[0]}; rank them all"
        )
    return rankings.take([row_of[window] for window in asked])


def _won(rows: pa.Table, repeats: int) -> np.ndarray:
    """Answers in the order of the plan as won_TPSR."""
    best_TPSR = pc.list_element(rows["order"], 0).to_numpy().astype(float).reshape(-1, len(PAIRS), 2, repeats)
    return np.stack([1 - best_TPSR[:, :, 0], best_TPSR[:, :, 1]], axis=2)


def _metric(rule: _Rule, found: Interval, mark: float) -> AuditMetric:
    """A measured property against its mark; what cannot be measured fails, and accuracy must also be surely above chance."""
    far = abs(found.estimate) <= mark if rule.setting.startswith("max_") else found.estimate >= mark
    passed = bool(far and (rule.name != "accuracy" or found.low > 0.5))
    estimate, low, high = (None if np.isnan(x) else float(x) for x in found[:3])
    return AuditMetric(
        name=rule.name, label=rule.label, estimate=estimate, low=low, high=high, n=found.n, unit=rule.unit, chance=rule.chance,
        mark=mark, setting=rule.setting, passed=passed, explanation=rule.explanation,
    )  # fmt: skip


def _reasons(metrics: list[AuditMetric]) -> list[str]:
    """One sentence for each failed mark; one for all that could not be measured."""
    reasons = []
    for metric in metrics:
        if metric.passed or metric.estimate is None:
            continue
        measured = f"{metric.label} is {metric.estimate:.3f} (95 % interval {metric.low:.3f} to {metric.high:.3f})"
        if metric.at_most:
            reasons.append(f"{measured}, more than {metric.setting} {metric.mark:g} allows: {metric.explanation}.")
        elif metric.estimate < metric.mark:
            reasons.append(f"{measured}, below {metric.setting} {metric.mark:g}: {metric.explanation}.")
        else:
            reasons.append(f"{measured}: the interval reaches down to chance, 0.5; ask about more triples or values.")
    unknown = [metric.label.lower() for metric in metrics if metric.estimate is None]
    return reasons + ([f"There are too few usable answers to measure {', '.join(unknown)}."] if unknown else [])


def _advice(metrics: list[AuditMetric]) -> list[str]:
    """What to do about each failed mark that was measured, or with a judge that passed."""
    failed = {metric.name for metric in metrics if not metric.passed and metric.estimate is not None}
    if all(metric.passed for metric in metrics):
        return ["Use this judge. Audit it again when its model, prompt, engine or temperature changes."]
    return ["Do not build or evaluate with this judge.", *(rule.advice for rule in RULES if rule.name in failed)]


def _by_distance(triples: Triples, won_TPSR: np.ndarray) -> list[Group]:
    """Accuracy in up to NUM_BINS groups of pairs, equally many in each unless distances tie."""
    distance_TP = triples.distances()
    upper = np.unique(np.quantile(distance_TP, np.arange(1, NUM_BINS + 1) / NUM_BINS, method="inverted_cdf"))
    bin_TP = np.searchsorted(upper, distance_TP)
    groups = []
    for number in range(len(upper)):
        mine = distance_TP[bin_TP == number]
        label = f"{mine.min():.3g}" + (f" to {mine.max():.3g}" if mine.max() > mine.min() else "")
        groups.append(_group(label, distance_TP, bin_TP == number, won_TPSR))
    return groups


def _by_value(triples: Triples, won_TPSR: np.ndarray) -> list[Group]:
    """Accuracy value by value."""
    owned = [np.repeat(triples.value_T[:, None] == number, len(PAIRS), 1) for number in range(len(triples.values))]
    return [_group(value, triples.distances(), mine, won_TPSR) for value, mine in zip(triples.values, owned, strict=True)]


def _group(label: str, distance_TP: np.ndarray, chosen_TP: np.ndarray, won_TPSR: np.ndarray) -> Group:
    found = measures.accuracy(np.where(chosen_TP[:, :, None, None], won_TPSR, np.nan))
    estimate, low, high = (None if np.isnan(x) else float(x) for x in found[:3])
    distance = float(distance_TP[chosen_TP].mean())
    return Group(label=label, distance=distance, estimate=estimate, low=low, high=high, n=found.n)


def _contradictions(triples: Triples, won_TPSR: np.ndarray) -> list[Contradiction]:
    """Pairs (once each) whose presentations disagree, the farthest of every value first: those need explaining most."""
    known, distance_TP = triples.known.to_pylist(), triples.distances()
    differs_TPR = won_TPSR[:, :, 0] - won_TPSR[:, :, 1]  # 1: the first place won both, -1: the last did, 0: no contradiction
    pairs = [(i, p) for i, p in zip(*np.nonzero((np.abs(differs_TPR) == 1).any(axis=2)), strict=True)]
    turn: dict[int, int] = {}
    ordered = []
    for i, p in sorted(pairs, key=lambda pair: -distance_TP[pair]):
        turn[triples.value_T[i]] = turn.get(triples.value_T[i], -1) + 1
        ordered.append((turn[triples.value_T[i]], -distance_TP[i, p], i, p))
    found = []
    for _, _, i, p in sorted(ordered):
        higher, lower = (known[triples.rows_T3[i, side]] for side in PAIRS[p])
        differs_R = differs_TPR[i, p]
        place = 0 if differs_R[np.abs(differs_R) == 1][0] == 1 else 1
        ratings = {"higher_rating": higher["rating"], "lower_rating": lower["rating"]}
        value = triples.values[triples.value_T[i]]
        found.append(Contradiction(value=value, higher=higher["text"], lower=lower["text"], place=place, **ratings))
    return found
