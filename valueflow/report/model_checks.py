"""Model checks as a page shows them: of each, whether the assumption holds in one sentence, small tables, a figure."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from scipy.special import ndtri
from scipy.stats import chi2

from valueflow.numerics.intervals import Z95
from valueflow.ranking.model_checks import Bin, Checks, JudgeCheck, ModelCheck, Residual, Triads

# A difference that is sure but smaller than this is said and not held against the model: one point of a share, or, in nats of
# a log score, one percent of the probability of the answers.
SMALL = 0.01
SURE = 0.01  # chance that a check of many differences fails though all are chance
MODELS = {
    "plackett-luce": "Plackett-Luce",
    "bradley-terry": "Bradley-Terry",
    "thurstone": "Thurstone's case V (normal)",
}
PLACED = {"above": "above both", "between": "between them", "below": "below both"}


class Table(NamedTuple):
    """A small table; the first cell of a row names it."""

    caption: str
    names: list[str]
    rows: list[list[str]]


class Drawing(NamedTuple):
    """A figure to be drawn in the colours C0 and C1 of the page, its description and its caption."""

    draw: Callable[[Axes], None]
    alt: str
    caption: str


class Part(NamedTuple):
    """One check: its name, whether the assumption holds (None where it cannot be told) and why, in one sentence."""

    name: str
    holds: bool | None
    sentence: str
    table: Table | None = None
    drawing: Drawing | None = None


def parts(found: dict) -> list[Part]:
    """Return the checks of one value, from what `ranking.checks.Checks` saves; none where no window could be held out."""
    checks = Checks.model_validate(found)
    if not checks.link:
        return []
    places = [(judge, place) for judge in checks.judges for place in judge.places]
    return [
        _link(checks.link),
        _models(checks.models),
        _transitivity(checks.transitivity),
        _context(checks.context),
        _judges(checks.judges),
        *([_places(places, len(checks.judges))] if places else []),
    ]


def summary(of: list[Part]) -> str:
    """Return how many checks are as expected, and which are not, as half a sentence."""
    told, failed = [part for part in of if part.holds is not None], [part.name for part in of if part.holds is False]
    if not told:
        return "too few windows to hold some out"
    if not failed:
        return f"all {len(told)} as expected"
    return f"{len(told) - len(failed)} of {len(told)} as expected, not: {', '.join(failed).lower()}"


def _link(bins: list[Bin]) -> Part:
    held = sum(b.low <= b.predicted <= b.high for b in bins)
    worst = max(bins, key=lambda b: abs(b.observed - b.predicted))
    apart = sum((Z95 * (b.observed - b.predicted) / ((b.high - b.low) / 2)) ** 2 for b in bins)
    count = f"{held} of {len(bins)} bins have the predicted share in the interval of the observed one"
    far = f"the better text won {_often(worst.observed - worst.predicted)} where {_percent(worst.predicted)} was predicted"
    off = apart > chi2.ppf(1 - SURE, len(bins))
    holds = not off or abs(worst.observed - worst.predicted) < SMALL
    fits = "fits nearly" if off and holds else "fits" if holds else "does not fit, by more than chance over all bins"
    sentence = f"The logistic link {fits}: {count}; furthest from it, {far}."
    predicted, observed, low, high = np.array([[b.predicted, b.observed, b.low, b.high] for b in bins]).T

    def draw(axes: Axes) -> None:
        axes.plot([0.5, 1], [0.5, 1], color="C1", linewidth=1.2)
        axes.errorbar(
            predicted,
            observed,
            np.maximum([observed - low, high - observed], 0.0),
            fmt="o",
            markersize=4,
            color="C0",
            linewidth=1.4,
        )
        axes.set(xlabel="predicted share", ylabel="observed share", xlim=(0.48, 1.02))
        axes.set_ylim(min(0.45, float(low.min()) - 0.02), 1.02)

    told = [f"{_percent(b.predicted)}: {_percent(b.observed)} ({_percent(b.low)} to {_percent(b.high)})" for b in bins]
    alt = f"Observed by predicted share: {'; '.join(told)}"
    caption = (
        "How often the text that is predicted better won, against the prediction: each point a bin of pairs of like distance, "
        "with its 95 % interval. On the line, answers are as predicted."
    )
    return Part("Logistic link", holds, sentence, drawing=Drawing(draw, alt, caption))


def _models(models: list[ModelCheck]) -> Part:
    better = [m for m in models if m.difference > Z95 * m.error and m.difference > 0]
    if not better:
        holds, sentence = True, "No other model predicts held-out pairs surely better than Plackett-Luce."
    else:
        best = max(better, key=lambda m: m.difference)
        holds = best.difference < SMALL
        much = "a little better than Plackett-Luce, too little to matter" if holds else "better than Plackett-Luce"
        sentence = f"{MODELS[best.model]} predicts held-out pairs {much}: by {_nats(best.difference)} nats a pair."
    rows = []
    for m in models:
        same = m.difference == m.error == 0  # Plackett-Luce itself, and Bradley-Terry where windows are pairs
        less = "–" if same else f"{_nats(m.difference)} ± {_nats(Z95 * m.error, False)}"
        rows.append([MODELS[m.model], _nats(m.score, False), less])
    names = ["Model", "Log score, nats a pair", "Less Plackett-Luce's, 95 % interval"]
    return Part("Choice of model", holds, sentence, Table("How well each predicts held-out pairs", names, rows))


def _transitivity(triads: Triads | None) -> Part:
    if triads is None:
        return Part("One scale", None, "No three texts were compared two by two, each time apart: there is no circle to count.")
    more, off = triads.observed - triads.expected, triads.observed > triads.high
    holds = not off or more < SMALL
    fit = "fit nearly" if off and holds else "fit" if holds else "do not fit"
    count = f"{_points(more)[1:]} more than expected" if off else "no more than expected"
    sentence = f"Answers {fit} on one scale: circles (A before B, B before C, C before A) are {count}."
    interval = f"{_percent(triads.expected)}, {_percent(triads.low)} to {_percent(triads.high)}"
    row = [f"{triads.triads:,}", _percent(triads.observed), interval]
    return Part("One scale", holds, sentence, Table("Circles", ["Triads", "Circular", "Expected, 95 % interval"], [row]))


def _context(groups: list[Residual]) -> Part:
    if not groups:
        return Part("Context", None, "No window holds a third text that could matter.")
    sure = _sure(groups)
    if not sure:
        holds, sentence = True, "The other texts of a window do not matter to which of two comes first."
    else:
        worst = max(sure, key=lambda group: abs(group.residual))
        holds = abs(worst.residual) < SMALL
        how = "hardly matter" if holds else "matter"
        sentence = (
            f"The other texts of a window {how}: where most lie {PLACED[worst.group]}, the better of two comes first "
            f"{_often(worst.residual)} than predicted."
        )
    rows = [[PLACED[g.group], f"{g.pairs:,}", _points(g.residual), _interval(g)] for g in groups]
    names = ["Others lie", "Pairs", "Observed less predicted", "95 % interval"]
    return Part("Context", holds, sentence, Table("Wins of the better text, by the window's other texts", names, rows))


def _judges(judges: list[JudgeCheck]) -> Part:
    off = [j for j in judges if abs(j.z) > ndtri(1 - SURE / 2 / len(judges)) and abs(j.score - j.expected) >= SMALL]
    if not off:
        who = "The judge is" if len(judges) == 1 else f"All {len(judges)} judges are"
        sentence = f"{who} as predictable as the model says."
    elif len(judges) == 1:
        sentence = f"The judge is {_other(off[0])} predictable than the model says."
    else:
        told = ", ".join(f"judge {j.judge + 1} is {_other(j)} so" for j in off)
        sentence = f"Not all judges are as predictable as the model says: {told}."
    rows = [
        [f"{j.judge + 1}", f"{j.windows:,}", _nats(j.score, False), _nats(j.expected, False), _signed(j.z, 1)] for j in judges
    ]
    names = ["Judge", "Windows", "Log score, nats a pair", "Expected", "Difference in standard errors"]
    return Part("Judges", not off, sentence, Table("How well each judge's held-out answers are predicted", names, rows))


def _places(places: list[tuple[JudgeCheck, Residual]], num_judges: int) -> Part:
    sure = _sure([place for _, place in places])
    judge, worst = max(((j, p) for j, p in places if p in sure or not sure), key=lambda found: abs(found[1].residual))
    holds = not sure or abs(worst.residual) < SMALL
    of = f" with judge {judge.judge + 1}" if num_judges > 1 else ""
    most = f"place {worst.group}{of} wins {_often(worst.residual)} than predicted"
    sentence = f"The place a text is shown at {'does not matter' if holds else 'matters'}: furthest from it, {most}."
    rows = [[f"{j.judge + 1}", p.group, f"{p.pairs:,}", _points(p.residual), _interval(p)] for j, p in places]
    names = ["Judge", "Place", "Pairs", "Observed less predicted", "95 % interval"]
    return Part("Places", holds, sentence, Table("Wins of the text at each place", names, rows))


def _sure(groups: list[Residual]) -> list[Residual]:
    """Those that differ from 0 by more than chance among so many (Bonferroni)."""
    wider = ndtri(1 - SURE / 2 / len(groups)) / Z95
    return [g for g in groups if abs(g.residual) > wider * (g.high - g.low) / 2]


def _other(judge: JudgeCheck) -> str:
    return "more" if judge.z > 0 else "less"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(share: float) -> str:
    """A difference of shares, with its sign and a real minus."""
    return f"{_signed(100 * share, 1)} points"


def _often(share: float) -> str:
    return f"{abs(100 * share):.1f} points {'more' if share > 0 else 'less'} often"


def _interval(group: Residual) -> str:
    return f"{_signed(100 * group.low, 1)} to {_signed(100 * group.high, 1)}"


def _nats(x: float, sign: bool = True) -> str:
    return _signed(x, 4) if sign else f"{x:.4f}".replace("-", "−")


def _signed(x: float, digits: int) -> str:
    return f"{round(x, digits) + 0.0:+.{digits}f}".replace("-", "−")
