"""The rating baseline as a table for the terminal and as one self-contained HTML page, beside the paper's figures."""

import functools
import math
from typing import Literal, NamedTuple

import jinja2
import numpy as np
from matplotlib.axes import Axes

from valueflow.judging.audit.rating import Comparison, RatingEstimate, Row, Scores, judge_scores, judge_spread
from valueflow.records import LIMIT
from valueflow.report.terminal import Column, text_table
from valueflow.report.vidb_page import FIRST, INK, POINTS, SECOND, Plot, _svg, templates


class Line(NamedTuple):
    """How a row is shown: its unit, which way is better, the paper's rating and ranking where it has them, what it means."""

    key: str
    label: str
    unit: Literal["share", "points", "points²", "index"]
    better: Literal["low", "high", ""]
    paper: tuple[str, str] | None
    meaning: str


# The paper's figures are facts of ../shared/METHOD.md, section 3: other judges, other texts.
GROUPS = {
    "Between judges": [
        Line(
            "judge_variance", "Variance between judges", "points²", "low", ("12.6", "2.1"),
            "How far the judges' scores of one text spread; a judge's score is the mean over its repeats.",
        ),
        Line(
            "judge_flips", "Sign flips, any two judges", "share", "low", ("48", "29"),
            "Texts that one judge puts above zero and another below.",
        ),
        Line(
            "judge_pair_flips", "Sign flips, by pair", "share", "low", None,
            "The same as a share of pairs of judges, which does not grow with the number of judges.",
        ),
        Line(
            "reliability", "Reliability", "index", "high", None,
            "Share of the variance of scores that lies between texts of a value and not between judges (intraclass "
            "correlation). Squeezing all scores towards zero lowers the variance above, but does not raise this.",
        ),
    ],
    "On re-prompt": [
        Line(
            "prompt_variance", "Variance of repeats", "points²", "low", None, "How far one judge's repeats on one text spread.",
        ),
        Line(
            "prompt_flips", "Sign flips of repeats", "share", "low", None,
            "Pairs of repeats of which one is above zero and the other below.",
        ),
        Line("prompt_change", "Change", "points", "low", None, "Mean absolute difference of two repeats."),
    ],
    "Against the reference": [
        Line(
            "sign_accuracy", "Sign accuracy", "share", "high", None,
            "Scores on the reference's side of zero; a score of zero counts half, texts with reference zero are left out.",
        ),
        Line(
            "pairwise_accuracy", "Pairwise accuracy", "share", "high", ("77.4", "84.2"),
            "Pairs of texts of one value that are ordered as in the reference; tied scores count half, pairs tied in the "
            "reference are left out.",
        ),
        Line(
            "deviation", "Deviation", "points", "low", ("–", "1.4"), "Mean absolute difference of score and reference.",
        ),
    ],
    "Answers": [
        Line(
            "zeros", "Exactly zero", "share", "", None,
            "Zero has no sign and flips with nothing, so a method that gives many zeros looks steadier in sign than it is.",
        ),
        Line("broken", "Broken", "share", "low", None, "Answers that could not be used."),
    ],
}  # fmt: skip
OF_ONE_JUDGE = ["On re-prompt", "Against the reference", "Answers"]
COLUMNS = ["", "Rating", "Ranking", "Ranking less rating", "Paper: rating, ranking"]


class LineView(NamedTuple):
    """A row as shown: cells are (number, interval); `texts` says how many it rests on where these are not all."""

    line: Line
    rating: tuple[str, str]
    ranking: tuple[str, str]
    difference: tuple[str, str]
    verdict: str
    paper: str
    texts: str


class JudgeView(NamedTuple):
    """A judge as the page shows it."""

    name: str
    groups: dict[str, list[LineView]]
    plots: list[Plot]


def rating_table(comparison: Comparison) -> str:
    """Return the table of all judges for a terminal, intervals in brackets."""
    lines = []
    for group, views in _views(comparison, comparison.rows, list(GROUPS)).items():
        lines.append([group.upper(), "", "", "", ""])
        for view in views:
            cells = [f"{number} [{interval}]" if interval else number for number, interval in view[1:4]]
            lines.append([f"{view.line.label}, {_unit(view.line)}".rstrip(", "), *cells, view.paper])
    table = text_table([Column(name, numeric=bool(name)) for name in COLUMNS], lines)
    return "\n".join([table, *_notes(comparison)]).replace("−", "-")


def baseline_page(comparison: Comparison, reference: str, settings: dict[str, str], config_yaml: str) -> str:
    """Return the page of a baseline.

    Args:
        comparison: the rows.
        reference: what the texts' references are, in words: "human ratings", "the direction that the corpus gives".
        settings: what made it, name and value, as a table at the end.
        config_yaml: the resolved config.
    """
    views = [
        JudgeView(name, _views(comparison, rows, OF_ONE_JUDGE), _scatters(comparison, j))
        for j, (name, rows) in enumerate(zip(comparison.judges, comparison.by_judge, strict=True))
    ]
    return _template().render(
        comparison=comparison,
        groups=_views(comparison, comparison.rows, list(GROUPS)),
        plots=_spreads(comparison),
        judges=views,
        notes=_notes(comparison),
        num_texts=len(comparison.rating.value_T),
        num_values=len(np.unique(comparison.rating.value_T)),
        reference=reference,
        settings=settings,
        config_yaml=config_yaml,
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = templates()
    environment.filters |= {"unit": _unit}
    return environment.get_template("baseline.html")


def _views(comparison: Comparison, rows: dict[str, Row], groups: list[str]) -> dict[str, list[LineView]]:
    num_texts = len(comparison.rating.value_T)
    return {group: [_view(line, rows[line.key], num_texts) for line in GROUPS[group]] for group in groups}


def _view(line: Line, row: Row, num_texts: int) -> LineView:
    cells = [_cell(row.rating, line), _cell(row.ranking, line), _cell(row.difference, line, signed=True)]
    rated, ranked = row.rating.num_texts, row.ranking.num_texts
    texts = "" if rated == ranked == num_texts else f"{rated:,} texts rated, {ranked:,} ranked."
    return LineView(line, cells[0], cells[1], cells[2], _verdict(row.difference, line), ", ".join(line.paper or ()), texts)


def _cell(estimate: RatingEstimate, line: Line, signed: bool = False) -> tuple[str, str]:
    if math.isnan(estimate.value):
        return "–", ""
    number = _format(estimate.value, line, signed)
    if math.isnan(estimate.low):
        return number, ""
    return number, f"{_format(estimate.low, line, signed)} to {_format(estimate.high, line, signed)}"


def _format(x: float, line: Line, signed: bool = False) -> str:
    """Shares in percent; a real minus, and no sign on what rounds to zero."""
    digits = 1 if line.unit == "share" else 2
    number = round(100 * x if line.unit == "share" else x, digits) + 0.0  # -0.0 becomes 0.0
    return f"{number:{'+' if signed and number else ''}.{digits}f}".replace("-", "−")


def _unit(line: Line) -> str:
    return {"share": "%", "index": ""}.get(line.unit, line.unit)


def _verdict(difference: RatingEstimate, line: Line) -> str:
    """Who is better in a row, where the interval of the difference leaves zero out."""
    if not line.better or not (difference.low > 0 or difference.high < 0):
        return ""
    return "ranking better" if (difference.low > 0) == (line.better == "high") else "rating better"


def _notes(comparison: Comparison) -> list[str]:
    """Why rows are empty or cannot be trusted, in words."""
    rating, ranking = comparison.rating, comparison.ranking
    notes = []
    for scores in (rating, ranking):
        for name, score_RT in zip(comparison.judges, scores.score_JRT, strict=True):
            if np.isnan(score_RT).all():
                where = f"no number for {scores.method} and in no difference"
                notes.append(f"Judge {name} gave no usable {scores.method}: it is in {where} but Broken.")
        if scores.score_JRT.shape[1] == 1:
            notes.append(f"One {scores.method} per judge and text: nothing can be said about its re-prompts.")
    if len(comparison.judges) == 1:
        notes.append("One judge: nothing can be said between judges.")
    if np.isnan(rating.reference_T).all():
        notes.append("No text has a reference.")
    return notes


def _spreads(comparison: Comparison) -> list[Plot]:
    """The distribution over texts of the standard deviation between judges; no plot where there is none."""
    spreads = [judge_spread(comparison.rating), judge_spread(comparison.ranking)]
    rating_N, ranking_N = (spread[np.isfinite(spread)] for spread in spreads)
    if not len(rating_N) or not len(ranking_N):
        return []
    top = max(rating_N.max(), ranking_N.max(), 1.0)
    edges = np.linspace(0, top, 25)

    def draw(axes: Axes) -> None:
        for name, spread_N, colour in (("rating", rating_N, FIRST), ("ranking", ranking_N, SECOND)):
            height = np.histogram(spread_N, edges)[0] / len(spread_N)
            axes.stairs(height, edges, color=colour, fill=True, alpha=0.25, linewidth=0)
            axes.stairs(height, edges, color=colour, linewidth=1.4, label=name)
            axes.axvline(float(np.median(spread_N)), color=colour, linewidth=1, linestyle=(0, (3, 2)))
        axes.set(xlabel="standard deviation between judges (points)", ylabel="share of texts", xlim=(0, top))
        axes.legend(frameon=False, labelcolor=INK)

    medians = f"median {np.median(rating_N):.2f} points for rating, {np.median(ranking_N):.2f} for ranking"
    alt = f"Distribution over texts of the standard deviation between judges: {medians}"
    caption = f"How far the judges differ on a text: {medians} (dashed). Further left is closer agreement."
    return [Plot(_svg(draw, alt, "baseline spread"), caption)]


def _scatters(comparison: Comparison, judge: int) -> list[Plot]:
    """A judge's scores against the reference, by rating and by ranking; no plot where there is none."""
    plots = [_scatter(scores, comparison.judges[judge], judge) for scores in (comparison.rating, comparison.ranking)]
    return [plot for plot in plots if plot]


def _scatter(scores: Scores, name: str, judge: int) -> Plot | None:
    reference_T, score_T = scores.reference_T, judge_scores(scores)[judge]
    shown = np.isfinite(reference_T) & np.isfinite(score_T)
    if not shown.any():
        return None

    def draw(axes: Axes) -> None:
        size, alpha = (10, 0.7) if shown.sum() < 1000 else (4, 0.35)
        axes.axhline(0, color=INK, linewidth=0.6)
        axes.axvline(0, color=INK, linewidth=0.6)
        axes.plot([-LIMIT, LIMIT], [-LIMIT, LIMIT], color=SECOND, linewidth=1)
        axes.scatter(reference_T[shown], score_T[shown], s=size, alpha=alpha, color=POINTS, linewidths=0, rasterized=True)
        ticks = np.linspace(-LIMIT, LIMIT, 5).tolist()
        axes.set(xlabel="reference", ylabel=f"{scores.method} (points)", xticks=ticks, yticks=ticks)
        axes.set(xlim=(-1.05 * LIMIT, 1.05 * LIMIT), ylim=(-1.05 * LIMIT, 1.05 * LIMIT))

    mean = float((score_T[shown] - reference_T[shown]).mean())
    alt = f"{scores.method} by {name} against the reference, {shown.sum():,} texts: on average {mean:+.2f} points above it"
    caption = f"{scores.method.capitalize()}, mean over repeats, of {shown.sum():,} texts. On the line it equals the reference."
    return Plot(_svg(draw, alt, f"{name} {scores.method}"), caption)
