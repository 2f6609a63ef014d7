"""Verdicts of the steerability study on simulated models and judges with planted truths.

python -m benchmarks.steerability
"""

from collections import Counter
from typing import NamedTuple

import numpy as np

from benchmarks.steering_worlds import (
    BORDER,
    COMPOSITIONS,
    JUDGE_SD,
    NOISE_SD,
    PERSONA_SHIFT,
    REACH,
    TYPES,
    CountingJudge,
    compose_world,
    planted,
    rank_all,
    ranked_world,
    refuse,
    respond,
    side_effect_world,
    stratum_of,
)
from valueflow.evaluation.scoring import EvaluatorConfig
from valueflow.steering.study.composition import compose
from valueflow.steering.study.effects import FAMILY, contrasts, stratified
from valueflow.steering.study.judge_error import SavedAnswers, redrawn_scores, rubin
from valueflow.steering.study.planner import PlanConfig, plan
from valueflow.steering.study.refusals import DEPENDS, Responses, Rule, refusal_study
from valueflow.steering.study.side_effects import side_effects
from valueflow.steering.study.simultaneous import critical_value, deviations, draw_queries
from valueflow.steering.study.verdicts import Interval, verdict

EFFECT_NATS, NUM_ANCHORS, NUM_ANCHOR_DRAWS = 2.5, 24, 20
NUM_RUNS, NUM_DRAWS, NUM_VALUES, MARGIN = 200, 500, 32, 1.0
DEFAULT, MINUS, PLUS = (FAMILY.index(name) for name in ("default", "effect -2", "effect +2"))
SD = float(np.sqrt(2) * np.hypot(NOISE_SD, JUDGE_SD))


class Outcome(NamedTuple):
    """One simulated study: types, whether all intervals hold the truth, and the claims of the sides."""

    types: list[str]
    covered: bool
    sides: list[str]


def planned_queries() -> int:
    """Queries of the planner for margin 1 and the spread of the simulation."""
    return plan(PlanConfig(values=NUM_VALUES, sd=SD)).still_queries[MARGIN]


def study(dose_VL, default_V, num_queries: int, rng) -> Outcome:
    world = respond(dose_VL, default_V, num_queries, rng)
    d_QJ = np.concatenate([contrasts(y_QL, FAMILY) for y_QL in world.y_VQL], axis=1)
    true_VQL = (default_V + PERSONA_SHIFT)[:, None, None] + dose_VL[:, None, :]
    truth_J = np.concatenate([contrasts(y_QL, FAMILY)[0] for y_QL in true_VQL])
    effects = stratified(d_QJ, world.stratum_Q)
    t_BJ = deviations(d_QJ, world.stratum_Q, draw_queries(world.stratum_Q, NUM_DRAWS, rng), effects)
    critical, critical_90 = critical_value(t_BJ, 0.95), critical_value(t_BJ, 0.9)
    covered = bool((np.abs(effects.estimate_J - truth_J) <= critical * effects.error_J).all())
    intervals = [
        Interval(x, e, critical, critical_90)
        for x, e in zip(effects.estimate_J.tolist(), effects.error_J.tolist(), strict=True)
    ]
    verdicts = [
        verdict(intervals[i + PLUS], intervals[i + MINUS], intervals[i + DEFAULT], MARGIN, REACH, num_queries)
        for i in range(0, len(intervals), len(FAMILY))
    ]
    return Outcome([v.type for v in verdicts], covered, [side for v in verdicts for side in (v.plus, v.minus)])


class TypeFigures(NamedTuple):
    """Simultaneous coverage, and the types that planted values get."""

    coverage: float
    right: dict[str, float]  # by planted type, share of values that get it
    undetermined: float


def types(num_queries: int, num_runs: int = NUM_RUNS, seed: int = 0) -> TypeFigures:
    """Studies of 32 values, of each type equally many."""
    names = [name for name in TYPES for _ in range(NUM_VALUES // len(TYPES))]
    outcomes = [study(*planted(names), num_queries, np.random.default_rng([seed, run])) for run in range(num_runs)]
    right: Counter[str] = Counter()
    for outcome in outcomes:
        right.update(name for name, verdict_ in zip(names, outcome.types, strict=True) if name == verdict_)
    total = num_runs * NUM_VALUES // len(TYPES)
    return TypeFigures(
        float(np.mean([outcome.covered for outcome in outcomes])),
        {name: right[name] / total for name in TYPES},
        float(np.mean([name == "undetermined" for outcome in outcomes for name in outcome.types])),
    )


class FalseClaims(NamedTuple):
    """Shares of studies with any false claim, where every effect equals the margin: the hardest case for both claims."""

    steerable: float
    hard: float


def false_claims(num_queries: int, num_runs: int = NUM_RUNS, seed: int = 1) -> FalseClaims:
    dose_VL = np.tile([-BORDER, -BORDER / 2, 0, BORDER / 2, BORDER], (NUM_VALUES, 1))
    outcomes = [
        study(dose_VL, np.zeros(NUM_VALUES), num_queries, np.random.default_rng([seed, run])) for run in range(num_runs)
    ]
    return FalseClaims(*(float(np.mean([s in o.sides for o in outcomes])) for s in ("moved", "still")))


class PersonaFigures(NamedTuple):
    """Mean error of the effect of level +2, against the neutral persona and against the bare query."""

    neutral: float
    bare: float


def persona(num_queries: int, num_runs: int = NUM_RUNS, seed: int = 2) -> PersonaFigures:
    errors = []
    for run in range(num_runs):
        world = respond(*planted(["bidirectional"]), num_queries, np.random.default_rng([seed, run]))
        plus_Q = world.y_VQL[0, :, 4]
        d_QJ = np.column_stack([plus_Q - world.y_VQL[0, :, 2], plus_Q - world.bare_VQ[0]])
        errors.append(stratified(d_QJ, world.stratum_Q).estimate_J - world.effect_VL[0, 4])
    return PersonaFigures(*map(float, np.mean(errors, 0)))


class RefusalFigures(NamedTuple):
    """Bias of two readings, shares of studies whose bounds' intervals hold the truth, share with the verdict "depends"."""

    share: float
    as_scored: float
    answered_only: float
    manski: float
    lee: float
    depends: float


def refusals(num_queries: int = 300, num_runs: int = NUM_RUNS, seed: int = 3) -> RefusalFigures:
    """Level -2 moves the score by -4, a refusal reads as +4. Lee's bounds are about responses answered at both levels."""
    truth = refuse(0, -4.0, 1.0, np.random.default_rng(seed), num_truth=400_000)
    rows = []
    for run in range(num_runs):
        rng = np.random.default_rng([seed, run])
        world = refuse(num_queries, -4.0, 1.0, rng)
        rule = Rule(MARGIN, -1, 1.96, 1.645, (-10.0, 10.0))
        count_BQ = draw_queries(world.stratum_Q, 200, rng)
        level = Responses(world.level_QR, world.level_answered_QR)
        default = Responses(world.default_QR, world.default_answered_QR)
        result = refusal_study(level, default, world.stratum_Q, count_BQ, rule)
        scored, answered, manski, lee = result.readings
        rows.append([
            result.share, scored.low - truth.effect, answered.low - truth.effect,
            manski.interval_low <= truth.effect <= manski.interval_high,
            lee.interval_low <= truth.effect_answered <= lee.interval_high, result.verdict == DEPENDS,
        ])  # fmt: skip
    return RefusalFigures(*map(float, np.mean(rows, 0)))


class AnchorFigures(NamedTuple):
    """Coverage of 95 % intervals, and the judge's calls.

    The truth is the mean effect that the same evaluator measures in half as many worlds with exact anchors, so that its own
    bias, of a few percent, does not count as error of the anchors.
    """

    control: float  # exact anchors
    naive: float  # anchors that err, taken as exact
    imputed: float
    missing: float
    calls_to_rank: int
    calls_to_redraw: int


def anchor_error(num_queries: int = 80, num_runs: int = NUM_RUNS, error: float = 0.5, seed: int = 4) -> AnchorFigures:
    """An effect of 2.5 nats, measured among 24 anchors whose published theta errs by `error` nats."""
    exact = [_anchor_run(num_queries, 0.0, np.random.default_rng([seed, 0, run])) for run in range(num_runs // 2)]
    runs = [_anchor_run(num_queries, error, np.random.default_rng([seed, 1, run])) for run in range(num_runs)]
    truth = float(np.mean([run.estimate for run in exact]))

    def coverage(intervals) -> float:
        return float(np.mean([low <= truth <= high for low, high in intervals]))

    return AnchorFigures(
        coverage(run.naive for run in exact), coverage(run.naive for run in runs), coverage(run.imputed for run in runs),
        float(np.mean([run.missing for run in runs])), runs[0].calls_to_rank, sum(run.calls_to_redraw for run in runs),
    )  # fmt: skip


class AnchorRun(NamedTuple):
    """One simulated measurement: the effect and its intervals."""

    estimate: float
    naive: tuple[float, float]
    imputed: tuple[float, float]
    missing: float
    calls_to_rank: int
    calls_to_redraw: int


def _anchor_run(num_queries: int, error: float, rng) -> AnchorRun:
    config, stratum_Q = EvaluatorConfig(k=6, m=4, seed=0), stratum_of(num_queries)
    world = ranked_world(NUM_ANCHORS, error, rng)
    base_Q = rng.normal(-EFFECT_NATS / 2, 0.3, num_queries)
    theta = np.concatenate([base_Q, base_Q + EFFECT_NATS])
    ids = [f"response {i:04d}" for i in range(2 * num_queries)]
    judge = CountingJudge(world, dict(zip(ids, theta.tolist(), strict=True)), rng)
    saved = SavedAnswers(world.published, world.error_A, ids, rank_all(world, judge, ids, config), 1.0, config)
    calls = judge.calls
    published = saved._replace(error_A=np.zeros(NUM_ANCHORS))
    parts = [redrawn_scores(published, 1, rng, "judge_intensity")]
    parts += [redrawn_scores(saved, NUM_ANCHOR_DRAWS if error else 2, rng, "judge_intensity")]
    score_BU = np.vstack(parts)
    fits = [stratified(d_Q[:, None], stratum_Q) for d_Q in score_BU[:, num_queries:] - score_BU[:, :num_queries]]
    estimates, errors = np.array([fit.estimate_J for fit in fits[1:]]), np.array([fit.error_J for fit in fits[1:]])
    combined = rubin(estimates, errors, fits[0].freedom_J)
    naive, imputed = fits[0].interval(), combined.interval(fits[0].estimate_J)
    return AnchorRun(
        float(fits[0].estimate_J[0]), (float(naive[0][0]), float(naive[1][0])), (float(imputed[0][0]), float(imputed[1][0])),
        float(combined.missing_J[0]), calls, judge.calls - calls,
    )  # fmt: skip


class CompositionFigures(NamedTuple):
    """By planted kind, the share of studies that name it; and how often a design of one order calls the last dominant."""

    right: dict[str, float]
    fixed_order_dominance: float
    sum_predicts: dict[str, float]  # cross-validated: share of studies in which the sum beats the strongest alone for sure
    ceiling_sub_additive: float  # false sub-additivity at the end of the scale


def composition(num_queries: int = 300, num_runs: int = NUM_RUNS, seed: int = 5) -> CompositionFigures:
    stratum_Q, reach_X2 = stratum_of(num_queries), np.array([[-6.0, 6.0], [-6.0, 6.0]])
    right, sums, fixed, ceiling = {}, {}, [], []
    for number, kind in enumerate(COMPOSITIONS):
        results = []
        for run in range(num_runs):
            rng = np.random.default_rng([seed, number, run])
            y_QCX = compose_world(kind, num_queries, rng)
            count_BQ = draw_queries(stratum_Q, NUM_DRAWS, rng)
            results.append(compose(y_QCX, stratum_Q, count_BQ, 0.5, reach_X2))
            if kind == "order effect":
                alone = y_QCX.copy()
                alone[:, 4] = alone[:, 3]
                result = compose(alone, stratum_Q, count_BQ, 0.5, reach_X2)
                fixed.append(result.name == "dominance" and result.dominant == "b")
            if kind == "additive":
                high = np.minimum(y_QCX + 4.0, 6.0)
                ceiling.append(compose(high, stratum_Q, count_BQ, 0.5, reach_X2).name == "sub-additive")
        right[kind] = float(np.mean([result.name == kind for result in results]))
        sums[kind] = float(np.mean([result.strongest_over_sum[1] > 0 for result in results]))
    return CompositionFigures(right, float(np.mean(fixed)), sums, float(np.mean(ceiling)))


class SideEffectFigures(NamedTuple):
    """Coverage of the cells, of the cheap judge alone, and the width of the intervals against the subset alone."""

    coverage: float
    cheap_coverage: float
    correlation: float
    width: float
    subset_width: float


def side_effect_figures(num_queries: int = 300, num_runs: int = NUM_RUNS, seed: int = 6) -> SideEffectFigures:
    rows = []
    for run in range(num_runs):
        world = side_effect_world(6, num_queries, 0.25, np.random.default_rng([seed, run]))
        corrected = side_effects(world.trusted_VWQ, world.cheap_VWQ, world.stratum_Q)
        subset = side_effects(world.trusted_VWQ, None, world.stratum_Q)
        cheap = side_effects(world.cheap_VWQ, None, world.stratum_Q)
        rows.append([
            *(((m.low_VW <= world.effect_VW) & (world.effect_VW <= m.high_VW)).mean() for m in (corrected, cheap)),
            np.corrcoef(corrected.estimate_VW.ravel(), world.effect_VW.ravel())[0, 1],
            *((m.high_VW - m.low_VW).mean() for m in (corrected, subset)),
        ])  # fmt: skip
    return SideEffectFigures(*map(float, np.mean(rows, 0)))


def main() -> None:
    planned = planned_queries()
    print(f"{NUM_VALUES} values, {NUM_RUNS} simulated studies, margin {MARGIN:g}, planned queries {planned}")
    for num_queries in (planned, planned // 2, planned // 4):
        figures = types(num_queries)
        print(f"n={num_queries}: simultaneous coverage {figures.coverage:.3f} (goal 0.93 to 0.97)")
        right = ", ".join(f"{name} {share:.3f}" for name, share in figures.right.items())
        print(f"  right type: {right} (goal at n={planned}: 0.9); undetermined {figures.undetermined:.3f}")
    claims = false_claims(planned)
    print("share of studies with a false claim, every effect at the margin (goal 0.05):")
    print(f"  moved {claims.steerable:.3f}, still {claims.hard:.3f}")
    shift = persona(planned)
    print(f"persona shift {PERSONA_SHIFT}, bias: neutral persona {shift.neutral:+.3f}, bare query {shift.bare:+.3f}")
    refused = refusals()
    print(f"refusals {refused.share:.2f} at level -2, effect -4: verdict depends on refusals {refused.depends:.3f}")
    print(f"  bias as scored {refused.as_scored:+.2f}, answered only {refused.answered_only:+.2f}")
    print(f"  coverage Manski {refused.manski:.3f}, Lee {refused.lee:.3f} (goal 0.95)")
    anchors = anchor_error()
    print("anchor error 0.5, coverage (goals: naive below 0.9, imputed 0.93 to 0.97):")
    print(f"  exact anchors {anchors.control:.3f}, naive {anchors.naive:.3f}, imputed {anchors.imputed:.3f}")
    print(f"  missing information {anchors.missing:.2f}; calls {anchors.calls_to_rank}, to redraw {anchors.calls_to_redraw}")
    composed = composition()
    print(f"composition named right: {composed.right}; sum beats the strongest: {composed.sum_predicts}")
    print(f"  one order calls the last dominant {composed.fixed_order_dominance:.3f}")
    print(f"  false sub-additivity at a ceiling {composed.ceiling_sub_additive:.3f}")
    aside = side_effect_figures()
    print(f"side effects: coverage {aside.coverage:.3f}, of the cheap judge alone {aside.cheap_coverage:.3f}")
    print(f"  correlation {aside.correlation:.3f}; width {aside.width:.2f}, of the subset alone {aside.subset_width:.2f}")


if __name__ == "__main__":
    main()
