"""One self-contained HTML page per VIDB build or evaluation: tables and figures, no script, nothing loaded from outside."""

import functools
import html
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jinja2
import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from matplotlib.ticker import MaxNLocator

from valueflow.ranking.calibration import Calibration
from valueflow.records import LIMIT
from valueflow.report import model_checks
from valueflow.store import FitSummary
from valueflow.theories import theories

NUM_EXTREMES = 5
MAX_ROWS = 60
MAX_REASONS = 15

# Figures are drawn in these stand-in colours, which become CSS variables so that one figure serves light and dark pages.
INK, GRID, FIRST, SECOND = "#010101", "#020202", "#030303", "#040404"
VARIABLES = {INK: "var(--muted)", GRID: "var(--line)", FIRST: "var(--first)", SECOND: "var(--second)"}
POINTS = "#4a8fd0"  # rasterized, so one colour must be readable on both
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "axes.spines.top": False, "axes.spines.right": False, "grid.color": GRID, "grid.linewidth": 0.6, "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=[FIRST, SECOND]),
}  # fmt: skip


@dataclass(frozen=True)
class ValueReport:
    """One value of a build: its rows in the `vidb` table, its neutral texts, its fit, its calibration, its model checks."""

    id: str
    name: str
    definition: str
    theory_name: str
    rows: pa.Table
    neutral_ids: set[str]
    fit: FitSummary
    calibration: Calibration
    checks: dict | None = None
    # Of plans in rounds, before each round: windows a text, root mean square standard error, spread of theta.
    progress: list[tuple[float, float, float]] = field(default_factory=list)
    tokens: float = 0.0  # of the judges, for each text that a window shows


@dataclass(frozen=True)
class JudgeReport:
    """What one judge did: windows without an order by reason, tokens, how often each place shown came first, its audit."""

    name: str
    kind: str
    windows: int
    errors: int
    tokens_in: int
    tokens_out: int
    reasons: dict[str, int]
    place_wins: list[float]
    place_expected: float
    audit: str = "not audited"


@dataclass(frozen=True)
class BuildReport:
    """Everything the page of a VIDB version shows; `counts` is stage -> counter -> number."""

    version: str
    created: str
    code_version: str
    git_commit: str
    command: str
    values: list[ValueReport]
    judges: list[JudgeReport]
    counts: dict[str, dict[str, int]]
    licenses: dict[str, int]
    config_yaml: str
    lineage: list[str]
    warnings: list[str]


@dataclass(frozen=True)
class Evaluated:
    """Everything the page of an evaluation shows; `rows` is the `evaluations` table."""

    rows: pa.Table
    vidb_version: str
    judge: str
    k: int
    m: int
    sampling: str
    sharpness: dict[str, float]
    counts: dict[str, int]
    config_yaml: str


class Plot(NamedTuple):
    """A figure as inline SVG, its description for those who do not see it, and its caption."""

    svg: Markup
    caption: str


class ChecksView(NamedTuple):
    """A value's model checks as the template shows them: how many hold, then each with its figure."""

    summary: str
    hold: bool
    windows: int
    parts: list[tuple[model_checks.Part, Plot | None]]


class ValueView(NamedTuple):
    """A value as the template shows it; `standard_error` is the median, in intensity points."""

    report: ValueReport
    supporting: int
    opposing: int
    sure: float
    standard_error: float
    plots: list[Plot]
    most: list[dict]
    least: list[dict]
    checks: ChecksView | None


class JudgeView(NamedTuple):
    """A judge as the template shows it, its most common reasons first."""

    report: JudgeReport
    plot: Plot | None
    reasons: list[tuple[str, int]]


class ScoredView(NamedTuple):
    """The responses of one value, highest intensity first; `num_hidden` of them lie between `top` and `bottom`, not drawn."""

    id: str
    name: str
    theory_name: str
    num_rows: int
    mean: float
    width: float
    num_failed: int
    num_missing: int
    top: list[dict]
    bottom: list[dict]
    num_hidden: int


def vidb_page(report: BuildReport) -> str:
    """Return the page of a VIDB version."""
    values = [_value_view(value) for value in report.values]
    judges = [_judge_view(judge) for judge in report.judges]
    modes = sorted({value.calibration.mode for value in report.values})
    return _template().render(kind="vidb", report=report, values=values, judges=judges, modes=modes)


def evaluation_page(evaluated: Evaluated) -> str:
    """Return the page of an evaluation: every value's responses, at most 60 drawn, those at both ends."""
    pairs = zip(evaluated.rows["theory"].to_pylist(), evaluated.rows["value"].to_pylist(), strict=True)
    values = [_scored_view(evaluated.rows, theory, value) for theory, value in sorted(set(pairs))]
    return _template().render(kind="evaluation", evaluated=evaluated, values=values)


def templates() -> jinja2.Environment:
    """Return what renders the pages: texts are escaped, a missing name is an error; `count` writes whole numbers."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("valueflow.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = "{:,}".format
    return environment


@functools.cache
def _template() -> jinja2.Template:
    environment = templates()
    environment.filters |= {"signed": _signed, "number": _number}
    environment.globals |= {"limit": LIMIT}
    return environment.get_template("page.html")


def _signed(x: float) -> str:
    """An intensity with its sign and a real minus; what rounds to zero has none."""
    return "0.0" if abs(x) < 0.05 else f"{x:+.1f}".replace("-", "−")


def _number(x: float, digits: int) -> str:
    return f"{x:,.{digits}f}".replace("-", "−")


def _value_view(value: ValueReport) -> ValueView:
    rows = value.rows.sort_by([("theta", "descending"), ("text_id", "ascending")])  # intensity is clipped, theta is not
    intensity = rows["intensity"].to_numpy()
    theta, error = rows["theta"].to_numpy(), rows["standard_error"].to_numpy()
    points = (value.calibration.unclipped(theta + error) - value.calibration.unclipped(theta - error)) / 2
    sure = (rows["low"].to_numpy() > 0) | (rows["high"].to_numpy() < 0)
    ends = rows.select(["text", "intensity", "low", "high"])
    num_most = min(NUM_EXTREMES, (rows.num_rows + 1) // 2)
    num_least = min(NUM_EXTREMES, rows.num_rows - num_most)
    return ValueView(
        report=value,
        supporting=int((intensity > 0).sum()),
        opposing=int((intensity < 0).sum()),
        sure=float(sure.mean()),
        standard_error=float(np.median(points)),
        plots=[_histogram(value, rows), _errors(value, rows, points), *_progress(value)],
        most=ends.slice(0, num_most).to_pylist(),
        least=ends.slice(rows.num_rows - num_least).to_pylist()[::-1],
        checks=_checks_view(value, value.checks) if value.checks else None,
    )


def _progress(value: ValueReport) -> list[Plot]:
    """How surely the order was known after each round, for plans in rounds."""
    if len(value.progress) < 2:
        return []
    asked, error, spread = np.array(value.progress).T
    known = np.sqrt(np.clip(1 - (error / spread) ** 2, 0, 1))

    def draw(axes: Axes) -> None:
        axes.plot(asked, known, color=FIRST, marker="o", markersize=3, linewidth=1.2)
        axes.set(xlabel="windows the texts were in, on average", ylabel="expected correlation", ylim=(0, 1.02), xlim=(0, None))
        axes.grid(axis="y")
        if value.tokens:
            above = axes.secondary_xaxis("top", functions=(_times(value.tokens), _times(1 / value.tokens)))
            above.set_xlabel("tokens a text")

    alt = f"Expected correlation of theta with the judge's own, {value.name}: " + ", ".join(
        f"{n:.0f} windows {r:.3f}" for n, r in zip(asked, known, strict=True)
    )
    caption = (
        "What each round brought: the correlation of theta with what the judge would say if asked without end, as the fit "
        f"after that round expects it (last: {known[-1]:.3f}). Where the curve is flat, fewer windows (m) would do."
    )
    return [Plot(_svg(draw, alt, f"{value.id} progress"), caption)]


def _times(factor: float) -> Callable[[Any], np.ndarray]:
    return lambda x: np.asarray(x, float) * factor


def _checks_view(value: ValueReport, found: dict) -> ChecksView:
    parts = model_checks.parts(found)
    salt = f"{value.id} checks"
    plots = [Plot(_svg(p.drawing.draw, p.drawing.alt, salt), p.drawing.caption) if p.drawing else None for p in parts]
    hold = all(part.holds is not False for part in parts)
    return ChecksView(model_checks.summary(parts), hold, found["windows"], list(zip(parts, plots, strict=True)))


def _histogram(value: ValueReport, rows: pa.Table) -> Plot:
    intensity = rows["intensity"].to_numpy()
    neutral = intensity[pc.is_in(rows["text_id"], pa.array(sorted(value.neutral_ids), pa.string())).to_numpy()]

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=INK, linewidth=0.6)
        heights, _, _ = axes.hist(intensity, bins=np.linspace(-LIMIT, LIMIT, 41).tolist(), color=FIRST)
        tall = float(np.max(heights))
        axes.vlines(neutral, -0.11 * tall, -0.02 * tall, color=SECOND, linewidth=0.9)
        axes.set(xlim=(-LIMIT, LIMIT), ylim=(-0.13 * tall, 1.05 * tall), xlabel="intensity", ylabel="texts")
        axes.set_xticks([-10, -5, 0, 5, 10])
        ticks = MaxNLocator(5, integer=True).tick_values(0, tall)
        axes.set_yticks([tick for tick in ticks if tick <= 1.05 * tall])

    low, middle, high = np.quantile(intensity, [0.25, 0.5, 0.75])
    half = f"half lie between {low:.1f} and {high:.1f}, median {middle:.1f}"
    alt = f"Histogram of {len(intensity):,} intensities of {value.name}: {half}"
    below = f" Ticks below: the {len(neutral):,} neutral texts." if len(neutral) else " The pool has no neutral texts."
    return Plot(_svg(draw, alt, f"{value.id} histogram"), f"How the {len(intensity):,} texts spread over the scale." + below)


def _errors(value: ValueReport, rows: pa.Table, points: np.ndarray) -> Plot:
    num_windows = rows["num_windows"].to_numpy()
    same = bool((num_windows == num_windows[0]).all())
    across = rows["theta"].to_numpy() if same else num_windows

    def draw(axes: Axes) -> None:
        size, alpha = (9, 0.85) if len(points) < 1000 else (3, 0.35)
        axes.scatter(across, points, s=size, alpha=alpha, color=POINTS, linewidths=0, rasterized=True)
        xlabel = "theta (log-worth, nats)" if same else "windows the text was in"
        axes.set(xlabel=xlabel, ylabel="standard error (points)", ylim=(0, 1.1 * float(points.max())))
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        axes.grid(axis="y")

    what = "theta" if same else "number of windows"
    alt = f"Standard error against {what} for {value.name}: from {points.min():.2f} to {points.max():.2f} intensity points"
    caption = (
        f"Standard error of each text against its theta: every text was in the same number of windows ({num_windows[0]:,})."
        if same
        else "Standard error of each text against the number of windows it was in; more windows should make it smaller."
    )
    return Plot(_svg(draw, alt, f"{value.id} errors"), caption)


def _judge_view(judge: JudgeReport) -> JudgeView:
    reasons = sorted(judge.reasons.items(), key=lambda item: (-item[1], item[0]))
    if len(reasons) > MAX_REASONS:
        others = reasons[MAX_REASONS - 1 :]
        reasons = [*reasons[: MAX_REASONS - 1], (f"{len(others):,} other reasons", sum(count for _, count in others))]
    answered = judge.windows - judge.errors
    return JudgeView(judge, _places(judge, answered) if judge.place_wins and answered > 0 else None, reasons)


def _places(judge: JudgeReport, answered: int) -> Plot:
    expected = judge.place_expected
    chance = 2 * float(np.sqrt(expected * (1 - expected) / answered))

    def draw(axes: Axes) -> None:
        places = np.arange(1, len(judge.place_wins) + 1)
        axes.bar(places, judge.place_wins, width=0.6, color=FIRST)
        axes.axhspan(expected - chance, expected + chance, color=SECOND, alpha=0.25, linewidth=0)
        axes.axhline(expected, color=SECOND, linewidth=1.2)
        top = 1.15 * max(*judge.place_wins, expected + chance)
        axes.set(xlabel="place shown", ylabel="share that came first", ylim=(0, top), xlim=(0.4, len(places) + 0.6))
        axes.set_xticks(places)

    shares = ", ".join(f"place {p}: {share:.1%}" for p, share in enumerate(judge.place_wins, 1))
    alt = f"Share of windows that the text at each place won, judge {judge.name}: {shares}; expected {expected:.1%}"
    worst = int(np.argmax(np.abs(np.array(judge.place_wins) - expected)))
    caption = (
        f"A judge without position effect puts each place first in {expected:.1%} of the windows (line; band: two standard "
        f"deviations of chance). Furthest from it: place {worst + 1} with {judge.place_wins[worst]:.1%}."
    )
    return Plot(_svg(draw, alt, f"{judge.name} places"), caption)


def _svg(draw: Callable[[Axes], None], alt: str, salt: str) -> Markup:
    """Draw on new axes and return SVG for an HTML page: no ids that could clash, colours as CSS variables, `alt` as label."""
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": salt}):
        figure = Figure(figsize=(4.4, 2.5))
        draw(figure.add_axes((0.15, 0.19, 0.82, 0.77)))
        content = io.StringIO()
        figure.savefig(content, format="svg", transparent=True, dpi=144)
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<g id=\"[^\"]*\"", "<g", svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    size = re.search(r'viewBox="[^"]*"', svg)
    assert size
    body = svg[svg.index(">") + 1 :]
    label = html.escape(alt)
    return Markup(f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {size[0]} role="img" aria-label="{label}">{body}')


def _scored_view(rows: pa.Table, theory: str, value: str) -> ScoredView:
    of_value = rows.filter(pc.and_(pc.equal(rows["theory"], theory), pc.equal(rows["value"], value)))
    scored = of_value.filter(pc.is_valid(of_value["intensity"]))
    scored = scored.sort_by([("intensity", "descending"), ("response_id", "ascending")])
    drawn = scored.select(["query", "response", "intensity", "low", "high", "num_failed", "num_windows"])
    num_top = len(drawn) if len(drawn) <= MAX_ROWS else MAX_ROWS // 2
    num_bottom = min(len(drawn) - num_top, MAX_ROWS - num_top)
    width = scored["high"].to_numpy() - scored["low"].to_numpy()
    return ScoredView(
        id=f"{theory}:{value}",
        name=theories()[theory].node(value).name,
        theory_name=theories()[theory].name,
        num_rows=len(of_value),
        mean=float(scored["intensity"].to_numpy().mean()) if len(scored) else 0.0,
        width=float(np.median(width)) if len(scored) else 0.0,
        num_failed=pc.sum(of_value["num_failed"]).as_py() or 0,
        num_missing=len(of_value) - len(scored),
        top=drawn.slice(0, num_top).to_pylist(),
        bottom=drawn.slice(len(drawn) - num_bottom).to_pylist(),
        num_hidden=len(drawn) - num_top - num_bottom,
    )
