"""Rating against ranking, with the results of the paper: a table for the terminal and one self-contained HTML page."""

import math
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from valueflow.judging.audit.rating import Comparison, RatingEstimate, Row, Scores, judge_scores, judge_spread
from valueflow.records import LIMIT
from valueflow.report.formatting import DASH, decimal, interval, signed
from valueflow.report.plots import FIRST, INK, POINTS, SECOND, Plot, svg
from valueflow.report.templates import render
from valueflow.report.terminal import Column, text_table

UNITS = {"share": "%", "points": "points", "points²": "points²", "index": ""}


class Statistic(NamedTuple):
    """How a statistic is presented; `better` is the better direction, `paper` the paper's results for rating and ranking."""

    key: str
    label: str
    unit: Literal["share", "points", "points²", "index"]
    better: Literal["low", "high", ""]
    paper: tuple[str, str] | None
    meaning: str

    @property
    def title(self) -> str:
        """Label and unit."""
        return ", ".join(filter(None, (self.label, UNITS[self.unit])))

    def number(self, x: float, with_sign: bool = False) -> str:
        """Return a number of this statistic; shares are in percent."""
        write = signed if with_sign else decimal
        return write(100 * x, 1) if self.unit == "share" else write(x, 2)

    def interval(self, low: float, high: float, with_sign: bool = False) -> str:
        """Return an interval of this statistic; the empty string where there is none."""
        scale, digits = (100, 1) if self.unit == "share" else (1, 2)
        return interval(scale * low, scale * high, digits, with_sign)


# The paper's results (../shared/METHOD.md, section 3) are for other judges and texts.
GROUPS = {
    "Between judges": [
        Statistic(
            "judge_variance", "Variance between judges", "points²", "low", ("12.6", "2.1"),
            "Variance between the judges' scores of a text; a judge's score is the mean over its repeats.",
        ),
        Statistic(
            "judge_flips", "Sign flips, any two judges", "share", "low", ("48", "29"),
            "Share of texts that one judge scores above zero and another below.",
        ),
        Statistic(
            "judge_pair_flips", "Sign flips, by pair", "share", "low", None,
            "The same as a share of judge pairs, which does not grow with the number of judges.",
        ),
        Statistic(
            "reliability", "Reliability", "index", "high", None,
            "Share of the variance of scores that is between texts of a value, not between judges (intraclass "
            "correlation). Shrinking all scores toward zero lowers the variance above but does not raise this.",
        ),
    ],
    "On re-prompt": [
        Statistic(
            "prompt_variance", "Variance of repeats", "points²", "low", None, "Variance of one judge's repeats on one text.",
        ),
        Statistic(
            "prompt_flips", "Sign flips of repeats", "share", "low", None,
            "Share of pairs of repeats with one score above zero and the other below.",
        ),
        Statistic("prompt_change", "Change", "points", "low", None, "Mean absolute difference between two repeats."),
    ],
    "Against the reference": [
        Statistic(
            "sign_accuracy", "Sign accuracy", "share", "high", None,
            "Share of scores with the sign of the reference; a zero counts half, texts with reference zero are excluded.",
        ),
        Statistic(
            "pairwise_accuracy", "Pairwise accuracy", "share", "high", ("77.4", "84.2"),
            "Share of text pairs of one value that have the order of the reference; tied scores count half, pairs tied "
            "in the reference are excluded.",
        ),
        Statistic(
            "deviation", "Deviation", "points", "low", ("–", "1.4"), "Mean absolute difference between score and reference.",
        ),
    ],
    "Answers": [
        Statistic(
            "zeros", "Exactly zero", "share", "", None,
            "A zero has no sign and cannot flip, so a method that gives many zeros has fewer sign flips.",
        ),
        Statistic("broken", "Failed", "share", "low", None, "Share of failed answers."),
    ],
}  # fmt: skip
GROUPS_PER_JUDGE = ["On re-prompt", "Against the reference", "Answers"]
COLUMNS = ["", "Rating", "Ranking", "Ranking minus rating", "Paper: rating, ranking"]


class RatingRow(NamedTuple):
    """A statistic of both methods as the page needs it; cells are (number, interval).

    `texts` has the numbers of texts if some texts are not in the statistic.
    """

    statistic: Statistic
    rating: tuple[str, str]
    ranking: tuple[str, str]
    difference: tuple[str, str]
    verdict: str
    paper: str
    texts: str


class JudgeComparison(NamedTuple):
    """The section of one judge."""

    name: str
    groups: dict[str, list[RatingRow]]
    plots: list[Plot]


def rating_table(comparison: Comparison) -> str:
    """Return the statistics over all judges as a table for the terminal, intervals in brackets."""
    lines = []
    for group, rows in _groups(comparison, comparison.rows, list(GROUPS)).items():
        lines.append([group.upper(), "", "", "", ""])
        for row in rows:
            cells = [f"{number} [{ends}]" if ends else number for number, ends in (row.rating, row.ranking, row.difference)]
            lines.append([row.statistic.title, *cells, row.paper])
    table = text_table([Column(name, numeric=bool(name)) for name in COLUMNS], lines)
    return "\n".join([table, *_notes(comparison)]).replace("−", "-")


def rating_page(comparison: Comparison, reference: str, settings: dict[str, str], config_yaml: str) -> str:
    """Return the page as one self-contained HTML file.

    Args:
        comparison: the statistics.
        reference: source of the reference ratings, such as "human ratings".
        settings: name -> value, for the table of settings.
        config_yaml: the resolved config.
    """
    judges = [
        JudgeComparison(name, _groups(comparison, rows, GROUPS_PER_JUDGE), _scatters(comparison, j))
        for j, (name, rows) in enumerate(zip(comparison.judges, comparison.by_judge, strict=True))
    ]
    return render(
        "rating.html",
        comparison=comparison,
        groups=_groups(comparison, comparison.rows, list(GROUPS)),
        plots=_spreads(comparison),
        judges=judges,
        notes=_notes(comparison),
        num_texts=len(comparison.rating.value_T),
        num_values=len(np.unique(comparison.rating.value_T)),
        reference=reference,
        settings=settings,
        config_yaml=config_yaml,
    )


def _groups(comparison: Comparison, rows: dict[str, Row], groups: list[str]) -> dict[str, list[RatingRow]]:
    num_texts = len(comparison.rating.value_T)
    return {group: [_row(statistic, rows[statistic.key], num_texts) for statistic in GROUPS[group]] for group in groups}


def _row(statistic: Statistic, row: Row, num_texts: int) -> RatingRow:
    rated, ranked = row.rating.num_texts, row.ranking.num_texts
    return RatingRow(
        statistic=statistic,
        rating=_cell(row.rating, statistic),
        ranking=_cell(row.ranking, statistic),
        difference=_cell(row.difference, statistic, with_sign=True),
        verdict=better_method(row.difference, statistic),
        paper=", ".join(statistic.paper or ()),
        texts="" if rated == ranked == num_texts else f"{rated:,} texts rated, {ranked:,} ranked.",
    )


def _cell(estimate: RatingEstimate, statistic: Statistic, with_sign: bool = False) -> tuple[str, str]:
    if math.isnan(estimate.value):
        return DASH, ""
    return statistic.number(estimate.value, with_sign), statistic.interval(estimate.low, estimate.high, with_sign)


def better_method(difference: RatingEstimate, statistic: Statistic) -> str:
    """Return which method is better, if the interval of the difference (ranking minus rating) excludes zero."""
    if not statistic.better or not (difference.low > 0 or difference.high < 0):
        return ""
    return "ranking better" if (difference.low > 0) == (statistic.better == "high") else "rating better"


def _notes(comparison: Comparison) -> list[str]:
    """Limits of the comparison: judges that failed, and statistics that cannot be computed."""
    rating, ranking = comparison.rating, comparison.ranking
    notes = []
    for scores in (rating, ranking):
        for name, score_RT in zip(comparison.judges, scores.score_JRT, strict=True):
            if np.isnan(score_RT).all():
                notes.append(f"All {scores.method} answers of judge {name} failed: it counts only in the row Failed.")
        if scores.score_JRT.shape[1] == 1:
            notes.append(f"One {scores.method} per judge and text: there is no variance of repeats.")
    if len(comparison.judges) == 1:
        notes.append("One judge: there is no variance between judges.")
    if np.isnan(rating.reference_T).all():
        notes.append("No text has a reference.")
    return notes


def _spreads(comparison: Comparison) -> list[Plot]:
    """Distribution over texts of the standard deviation between judges; no plot without two judges."""
    spreads = [judge_spread(comparison.rating), judge_spread(comparison.ranking)]
    rating_N, ranking_N = (spread[np.isfinite(spread)] for spread in spreads)
    if not len(rating_N) or not len(ranking_N):
        return []
    top = max(rating_N.max(), ranking_N.max(), 1.0)
    edges = np.linspace(0, top, 25)

    def draw(axes: Axes) -> None:
        for name, spread_N, color in (("rating", rating_N, FIRST), ("ranking", ranking_N, SECOND)):
            height = np.histogram(spread_N, edges)[0] / len(spread_N)
            axes.stairs(height, edges, color=color, fill=True, alpha=0.25, linewidth=0)
            axes.stairs(height, edges, color=color, linewidth=1.4, label=name)
            axes.axvline(float(np.median(spread_N)), color=color, linewidth=1, linestyle=(0, (3, 2)))
        axes.set(xlabel="standard deviation between judges (points)", ylabel="share of texts", xlim=(0, top))
        axes.legend(frameon=False, labelcolor=INK)

    medians = f"median {np.median(rating_N):.2f} points for rating, {np.median(ranking_N):.2f} for ranking"
    alt = f"Distribution over texts of the standard deviation between judges: {medians}"
    caption = f"Disagreement of the judges on a text: {medians} (dashed). Further left is better agreement."
    return [Plot(svg(draw, alt, "rating spread"), caption)]


def _scatters(comparison: Comparison, judge: int) -> list[Plot]:
    """A judge's scores against the reference, from rating and from ranking; no plot without scores or references."""
    plots = [_scatter(scores, comparison.judges[judge], judge) for scores in (comparison.rating, comparison.ranking)]
    return [plot for plot in plots if plot]


def _scatter(scores: Scores, name: str, judge: int) -> Plot | None:
    reference_T, score_T = scores.reference_T, judge_scores(scores)[judge]
    both = np.isfinite(reference_T) & np.isfinite(score_T)
    if not both.any():
        return None

    def draw(axes: Axes) -> None:
        size, alpha = (10, 0.7) if both.sum() < 1000 else (4, 0.35)
        axes.axhline(0, color=INK, linewidth=0.6)
        axes.axvline(0, color=INK, linewidth=0.6)
        axes.plot([-LIMIT, LIMIT], [-LIMIT, LIMIT], color=SECOND, linewidth=1)
        axes.scatter(reference_T[both], score_T[both], s=size, alpha=alpha, color=POINTS, linewidths=0, rasterized=True)
        ticks = np.linspace(-LIMIT, LIMIT, 5).tolist()
        axes.set(xlabel="reference", ylabel=f"{scores.method} (points)", xticks=ticks, yticks=ticks)
        axes.set(xlim=(-1.05 * LIMIT, 1.05 * LIMIT), ylim=(-1.05 * LIMIT, 1.05 * LIMIT))

    mean = float((score_T[both] - reference_T[both]).mean())
    alt = f"{scores.method} by {name} against the reference, {both.sum():,} texts: mean difference {mean:+.2f} points"
    caption = f"{scores.method.capitalize()}, mean over repeats, of {both.sum():,} texts. On the line, both are equal."
    return Plot(svg(draw, alt, f"{name} {scores.method}"), caption)
