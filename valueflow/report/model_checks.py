"""Model checks of a value for its page: per check, whether the assumption holds, one sentence, a table, a figure."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from scipy.special import ndtri
from scipy.stats import chi2

from valueflow.numerics.intervals import Z95
from valueflow.ranking.model_checks import Bin, Checks, JudgeCheck, ModelCheck, Residual, Triads
from valueflow.report.formatting import DASH, decimal, interval, nats, percent, signed
from valueflow.report.plots import FIRST, SECOND

# A significant difference smaller than this is reported but does not fail the check: one percentage point, or for a log score
# 0.01 nats, that is one percent of the probability of the answers.
NEGLIGIBLE = 0.01
SIGNIFICANCE = 0.01  # false-alarm probability of a check over all its differences
MODELS = {
    "plackett-luce": "Plackett-Luce",
    "bradley-terry": "Bradley-Terry",
    "thurstone": "Thurstone's case V (normal)",
}
CONTEXTS = {"above": "above both", "between": "between them", "below": "below both"}


class CheckTable(NamedTuple):
    """A small table; the first cell of a row is its name."""

    caption: str
    columns: list[str]
    rows: list[list[str]]


class CheckFigure(NamedTuple):
    """A figure to be drawn, its text alternative and its caption."""

    draw: Callable[[Axes], None]
    alt: str
    caption: str


class CheckResult(NamedTuple):
    """One check: its name, whether the assumption holds (None if it cannot be tested), and why, in one sentence."""

    name: str
    passed: bool | None
    sentence: str
    table: CheckTable | None = None
    figure: CheckFigure | None = None


def check_results(saved: dict) -> list[CheckResult]:
    """Return the checks of one value from a saved `ranking.model_checks.Checks`; none if no window could be held out."""
    checks = Checks.model_validate(saved)
    if not checks.link:
        return []
    positions = [(judge, position) for judge in checks.judges for position in judge.places]
    return [
        _link(checks.link),
        _models(checks.models),
        _transitivity(checks.transitivity),
        _context(checks.context),
        _judges(checks.judges),
        *([_positions(positions, len(checks.judges))] if positions else []),
    ]


def summary(results: list[CheckResult]) -> str:
    """Return how many checks passed, and the names of those that failed, as half a sentence."""
    tested, failed = [r for r in results if r.passed is not None], [r.name for r in results if r.passed is False]
    if not tested:
        return "too few windows to hold some out"
    if not failed:
        return f"all {len(tested)} as expected"
    return f"{len(tested) - len(failed)} of {len(tested)} as expected, not: {', '.join(failed).lower()}"


def _link(bins: list[Bin]) -> CheckResult:
    num_inside = sum(b.low <= b.predicted <= b.high for b in bins)
    worst = max(bins, key=lambda b: abs(b.observed - b.predicted))
    statistic = sum((Z95 * (b.observed - b.predicted) / ((b.high - b.low) / 2)) ** 2 for b in bins)
    count = f"in {num_inside} of {len(bins)} bins the predicted share is inside the interval of the observed share"
    largest = f"{_more_often(worst.observed - worst.predicted)} where {percent(worst.predicted)} was predicted"
    significant = statistic > chi2.ppf(1 - SIGNIFICANCE, len(bins))
    passed = not significant or abs(worst.observed - worst.predicted) < NEGLIGIBLE
    verb = "does not fit" if not passed else "fits nearly" if significant else "fits"
    sentence = f"The logistic link {verb}: {count}; at the largest deviation, the better text won {largest}."
    predicted, observed, low, high = np.array([[b.predicted, b.observed, b.low, b.high] for b in bins]).T

    def draw(axes: Axes) -> None:
        axes.plot([0.5, 1], [0.5, 1], color=SECOND, linewidth=1.2)
        error = np.maximum([observed - low, high - observed], 0.0)
        axes.errorbar(predicted, observed, error, fmt="o", markersize=4, color=FIRST, linewidth=1.4)
        axes.set(xlabel="predicted share", ylabel="observed share", xlim=(0.48, 1.02))
        axes.set_ylim(min(0.45, float(low.min()) - 0.02), 1.02)

    points = [f"{percent(b.predicted)}: {percent(b.observed)} ({percent(b.low)} to {percent(b.high)})" for b in bins]
    alt = f"Observed by predicted share: {'; '.join(points)}"
    caption = (
        "Share of pairs won by the text that is predicted to be better, observed against predicted. Each point is a bin of "
        "pairs with similar predictions, with its 95 % interval. Points on the line agree with the model."
    )
    return CheckResult("Logistic link", passed, sentence, figure=CheckFigure(draw, alt, caption))


def _models(models: list[ModelCheck]) -> CheckResult:
    better = [m for m in models if m.difference > Z95 * m.error and m.difference > 0]
    if not better:
        passed, sentence = True, "No other model predicts held-out pairs significantly better than Plackett-Luce."
    else:
        best = max(better, key=lambda m: m.difference)
        passed = best.difference < NEGLIGIBLE
        how = "slightly better than Plackett-Luce, by a negligible amount" if passed else "better than Plackett-Luce"
        sentence = f"{MODELS[best.model]} predicts held-out pairs {how}: {nats(best.difference, True)} nats per pair."
    rows = []
    for m in models:
        same = m.difference == m.error == 0  # Plackett-Luce itself, and Bradley-Terry if windows are pairs
        difference = DASH if same else f"{nats(m.difference, True)} ± {nats(Z95 * m.error)}"
        rows.append([MODELS[m.model], nats(m.score), difference])
    columns = ["Model", "Log score, nats per pair", "Difference from Plackett-Luce, 95 % interval"]
    return CheckResult("Choice of model", passed, sentence, CheckTable("Predictions of held-out pairs", columns, rows))


def _transitivity(triads: Triads | None) -> CheckResult:
    if triads is None:
        return CheckResult("One scale", None, "No three texts were compared pairwise in different windows, so no cycles exist.")
    excess, significant = triads.observed - triads.expected, triads.observed > triads.high
    passed = not significant or excess < NEGLIGIBLE
    verb = "do not fit" if not passed else "nearly fit" if significant else "fit"
    count = f"{decimal(100 * excess, 1)} points more frequent" if significant else "no more frequent"
    sentence = f"The answers {verb} on one scale: cycles (A before B, B before C, C before A) are {count} than expected."
    expected = f"{percent(triads.expected)}, {percent(triads.low)} to {percent(triads.high)}"
    row = [f"{triads.triads:,}", percent(triads.observed), expected]
    table = CheckTable("Cycles", ["Triads", "Cyclic", "Expected, 95 % interval"], [row])
    return CheckResult("One scale", passed, sentence, table)


def _context(groups: list[Residual]) -> CheckResult:
    if not groups:
        return CheckResult("Context", None, "No window has a third text that could matter.")
    significant = _significant(groups)
    if not significant:
        passed, sentence = True, "The other texts of a window do not affect which of two texts is ranked higher."
    else:
        worst = max(significant, key=lambda group: abs(group.residual))
        passed = abs(worst.residual) < NEGLIGIBLE
        verb = "hardly affect" if passed else "affect"
        sentence = (
            f"The other texts of a window {verb} which of two texts is ranked higher: where most of them are "
            f"{CONTEXTS[worst.group]}, the better text wins {_more_often(worst.residual)} than predicted."
        )
    rows = [[CONTEXTS[g.group], f"{g.pairs:,}", _points(g.residual), _residual_interval(g)] for g in groups]
    columns = ["Other texts", "Pairs", "Observed minus predicted", "95 % interval"]
    table = CheckTable("Wins of the better text by the window's other texts", columns, rows)
    return CheckResult("Context", passed, sentence, table)


def _judges(judges: list[JudgeCheck]) -> CheckResult:
    limit = ndtri(1 - SIGNIFICANCE / 2 / len(judges))
    deviating = [j for j in judges if abs(j.z) > limit and abs(j.score - j.expected) >= NEGLIGIBLE]
    if not deviating:
        subject = "The judge is" if len(judges) == 1 else f"All {len(judges)} judges are"
        sentence = f"{subject} as predictable as the model expects."
    elif len(judges) == 1:
        sentence = f"The judge is {_more(deviating[0])} predictable than the model expects."
    else:
        names = ", ".join(f"judge {j.judge + 1} is {_more(j)} predictable" for j in deviating)
        sentence = f"Not all judges are as predictable as the model expects: {names}."
    rows = [[f"{j.judge + 1}", f"{j.windows:,}", nats(j.score), nats(j.expected), signed(j.z)] for j in judges]
    columns = ["Judge", "Windows", "Log score, nats per pair", "Expected", "Difference, standard errors"]
    table = CheckTable("Predictions of each judge's held-out answers", columns, rows)
    return CheckResult("Judges", not deviating, sentence, table)


def _positions(positions: list[tuple[JudgeCheck, Residual]], num_judges: int) -> CheckResult:
    significant = _significant([position for _, position in positions])
    candidates = [(j, p) for j, p in positions if p in significant or not significant]
    judge, worst = max(candidates, key=lambda pair: abs(pair[1].residual))
    passed = not significant or abs(worst.residual) < NEGLIGIBLE
    of_judge = f" of judge {judge.judge + 1}" if num_judges > 1 else ""
    largest = f"position {worst.group}{of_judge} wins {_more_often(worst.residual)} than predicted"
    verdict = "There is no position bias beyond the model" if passed else "There is position bias"
    sentence = f"{verdict}: at the largest deviation, {largest}."
    rows = [[f"{j.judge + 1}", p.group, f"{p.pairs:,}", _points(p.residual), _residual_interval(p)] for j, p in positions]
    columns = ["Judge", "Position", "Pairs", "Observed minus predicted", "95 % interval"]
    return CheckResult("Position bias", passed, sentence, CheckTable("Wins of the text at each position", columns, rows))


def _significant(groups: list[Residual]) -> list[Residual]:
    """The groups whose residual differs from 0, with a Bonferroni correction."""
    wider = ndtri(1 - SIGNIFICANCE / 2 / len(groups)) / Z95
    return [g for g in groups if abs(g.residual) > wider * (g.high - g.low) / 2]


def _more(judge: JudgeCheck) -> str:
    return "more" if judge.z > 0 else "less"


def _points(share: float) -> str:
    """A difference of shares in percentage points."""
    return f"{signed(100 * share)} points"


def _more_often(share: float) -> str:
    return f"{decimal(abs(100 * share), 1)} points {'more' if share > 0 else 'less'} often"


def _residual_interval(group: Residual) -> str:
    return interval(100 * group.low, 100 * group.high, 1, with_sign=True)
