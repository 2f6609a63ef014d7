"""The page of a VIDB version: each value's texts, fit, calibration, model checks; each judge's errors and position bias."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from valueflow.ranking.calibration import Calibration
from valueflow.records import LIMIT
from valueflow.report import model_checks
from valueflow.report.formatting import percent
from valueflow.report.model_checks import CheckResult
from valueflow.report.plots import FIRST, INK, POINTS, SECOND, Plot, svg
from valueflow.report.templates import render
from valueflow.store import FitSummary

NUM_EXTREMES = 5
MAX_REASONS = 15
MIN_SAMPLES = 2  # of a timeline with a figure


@dataclass(frozen=True)
class ValueReport:
    """One value of a build; `rows` is its part of the `vidb` table."""

    id: str
    name: str
    definition: str
    theory_name: str
    rows: pa.Table
    neutral_ids: set[str]
    fit: FitSummary
    calibration: Calibration
    rests_on: str = "the judge's own"  # what the intervals were estimated from
    checks: dict | None = None  # ranking.model_checks.Checks as saved
    # Before each adaptive round: mean windows per text, root mean square standard error, standard deviation of theta.
    progress: list[tuple[float, float, float]] = field(default_factory=list)
    tokens: float = 0.0  # of all judges, per text in a window


@dataclass(frozen=True)
class JudgeReport:
    """One judge of a build; `position_wins` is the share of valid windows in which the text at each position came first."""

    name: str
    kind: str
    windows: int
    errors: int
    tokens_in: int
    tokens_out: int
    reasons: dict[str, int]  # error -> failed windows
    position_wins: list[float]
    expected_wins: float  # without position bias
    audit: str = "not audited"
    truncated: int = 0  # texts
    max_chars: int | None = None  # of an LLM
    timeline: Sequence[Sequence[float]] = ()  # seconds, nodes, workers, answers (`store.Sample`)


@dataclass(frozen=True)
class BuildReport:
    """Contents of a VIDB version's page; `counts` is stage -> counter -> number."""

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


class ValueSection(NamedTuple):
    """A value as the template needs it; `standard_error` is the median, in intensity points."""

    report: ValueReport
    supporting: int
    opposing: int
    sign_certain: float  # share of texts whose interval excludes zero
    standard_error: float
    plots: list[Plot]
    highest: list[dict]
    lowest: list[dict]
    checks: "CheckSection | None"


class CheckSection(NamedTuple):
    """A value's model checks as the template needs them."""

    summary: str
    passed: bool
    windows: int  # held out
    results: list[tuple[CheckResult, Plot | None]]


class JudgeSection(NamedTuple):
    """A judge as the template needs it, with its most common errors first."""

    report: JudgeReport
    plot: Plot | None
    timeline: Plot | None
    reasons: list[tuple[str, int]]


def vidb_page(report: BuildReport) -> str:
    """Return the page of a VIDB version as one self-contained HTML file."""
    values = [_value_section(value) for value in report.values]
    judges = [_judge_section(judge) for judge in report.judges]
    modes = sorted({value.calibration.mode for value in report.values})
    return render("vidb.html", report=report, values=values, judges=judges, modes=modes)


def _value_section(value: ValueReport) -> ValueSection:
    rows = value.rows.sort_by([("theta", "descending"), ("text_id", "ascending")])  # intensity is clipped, theta is not
    intensity = rows["intensity"].to_numpy()
    theta, error = rows["theta"].to_numpy(), rows["standard_error"].to_numpy()
    points = (value.calibration.unclipped(theta + error) - value.calibration.unclipped(theta - error)) / 2
    certain = (rows["low"].to_numpy() > 0) | (rows["high"].to_numpy() < 0)
    extremes = rows.select(["text", "intensity", "low", "high"])
    num_highest = min(NUM_EXTREMES, (rows.num_rows + 1) // 2)
    num_lowest = min(NUM_EXTREMES, rows.num_rows - num_highest)
    return ValueSection(
        report=value,
        supporting=int((intensity > 0).sum()),
        opposing=int((intensity < 0).sum()),
        sign_certain=float(certain.mean()),
        standard_error=float(np.median(points)),
        plots=[_histogram(value, rows), _errors(value, rows, points), *_progress(value)],
        highest=extremes.slice(0, num_highest).to_pylist(),
        lowest=extremes.slice(rows.num_rows - num_lowest).to_pylist()[::-1],
        checks=_check_section(value, value.checks) if value.checks else None,
    )


def _check_section(value: ValueReport, checks: dict) -> CheckSection:
    results = model_checks.check_results(checks)
    salt = f"{value.id} checks"
    plots = [Plot(svg(r.figure.draw, r.figure.alt, salt), r.figure.caption) if r.figure else None for r in results]
    passed = all(result.passed is not False for result in results)
    return CheckSection(model_checks.summary(results), passed, checks["windows"], list(zip(results, plots, strict=True)))


def _histogram(value: ValueReport, rows: pa.Table) -> Plot:
    intensity = rows["intensity"].to_numpy()
    neutral = intensity[pc.is_in(rows["text_id"], pa.array(sorted(value.neutral_ids), pa.string())).to_numpy()]

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=INK, linewidth=0.6)
        heights, _, _ = axes.hist(intensity, bins=np.linspace(-LIMIT, LIMIT, 41).tolist(), color=FIRST)
        tallest = float(np.max(heights))
        axes.vlines(neutral, -0.11 * tallest, -0.02 * tallest, color=SECOND, linewidth=0.9)
        axes.set(xlim=(-LIMIT, LIMIT), ylim=(-0.13 * tallest, 1.05 * tallest), xlabel="intensity", ylabel="texts")
        axes.set_xticks([-10, -5, 0, 5, 10])
        ticks = MaxNLocator(5, integer=True).tick_values(0, tallest)
        axes.set_yticks([tick for tick in ticks if tick <= 1.05 * tallest])

    low, median, high = np.quantile(intensity, [0.25, 0.5, 0.75])
    quartiles = f"the middle half is between {low:.1f} and {high:.1f}, the median is {median:.1f}"
    alt = f"Histogram of {len(intensity):,} intensities of {value.name}: {quartiles}"
    below = f"Ticks below: the {len(neutral):,} neutral texts." if len(neutral) else "There are no neutral texts."
    caption = f"Distribution of the {len(intensity):,} texts over the scale. {below}"
    return Plot(svg(draw, alt, f"{value.id} histogram"), caption)


def _errors(value: ValueReport, rows: pa.Table, points: np.ndarray) -> Plot:
    num_windows = rows["num_windows"].to_numpy()
    equal = bool((num_windows == num_windows[0]).all())
    x = rows["theta"].to_numpy() if equal else num_windows

    def draw(axes: Axes) -> None:
        size, alpha = (9, 0.85) if len(points) < 1000 else (3, 0.35)
        axes.scatter(x, points, s=size, alpha=alpha, color=POINTS, linewidths=0, rasterized=True)
        xlabel = "theta (log-worth, nats)" if equal else "windows of the text"
        axes.set(xlabel=xlabel, ylabel="standard error (points)", ylim=(0, 1.1 * float(points.max())))
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        axes.grid(axis="y")

    against = "theta" if equal else "number of windows"
    alt = f"Standard error against {against} for {value.name}: from {points.min():.2f} to {points.max():.2f} intensity points"
    caption = (
        f"Standard error of each text against its theta; every text was in the same number of windows ({num_windows[0]:,})."
        if equal
        else "Standard error of each text against its number of windows; more windows should give a smaller error."
    )
    return Plot(svg(draw, alt, f"{value.id} errors"), caption)


def _progress(value: ValueReport) -> list[Plot]:
    """Expected correlation of theta with the judge's true theta after each adaptive round; no plot for a single round."""
    if len(value.progress) < 2:
        return []
    windows, error, spread = np.array(value.progress).T
    correlation = np.sqrt(np.clip(1 - (error / spread) ** 2, 0, 1))

    def draw(axes: Axes) -> None:
        axes.plot(windows, correlation, color=FIRST, marker="o", markersize=3, linewidth=1.2)
        axes.set(xlabel="mean windows per text", ylabel="expected correlation", ylim=(0, 1.02), xlim=(0, None))
        axes.grid(axis="y")
        if value.tokens:
            top = axes.secondary_xaxis("top", functions=(_scale(value.tokens), _scale(1 / value.tokens)))
            top.set_xlabel("tokens per text")

    alt = f"Expected correlation of theta with the judge's true theta, {value.name}: " + ", ".join(
        f"{n:.0f} windows {r:.3f}" for n, r in zip(windows, correlation, strict=True)
    )
    caption = (
        "Gain of each adaptive round: expected correlation of theta with the theta that unlimited answers of the judge would "
        f"give, from the fit after that round (last: {correlation[-1]:.3f}). Where the curve is flat, a smaller m is enough."
    )
    return [Plot(svg(draw, alt, f"{value.id} progress"), caption)]


def _scale(factor: float) -> Callable[[Any], np.ndarray]:
    return lambda x: np.asarray(x, float) * factor


def _judge_section(judge: JudgeReport) -> JudgeSection:
    reasons = sorted(judge.reasons.items(), key=lambda item: (-item[1], item[0]))
    if len(reasons) > MAX_REASONS:
        others = reasons[MAX_REASONS - 1 :]
        reasons = [*reasons[: MAX_REASONS - 1], (f"{len(others):,} other errors", sum(count for _, count in others))]
    valid = judge.windows - judge.errors
    positions = _positions(judge, valid) if judge.position_wins and valid > 0 else None
    return JudgeSection(judge, positions, _timeline(judge) if len(judge.timeline) > MIN_SAMPLES else None, reasons)


def _timeline(judge: JudgeReport) -> Plot:
    """Windows per second while the judge answered, and the workers and nodes that there were."""
    second_S, nodes_S, workers_S, answers_S = np.array(judge.timeline).T
    rate_S = np.diff(answers_S) / np.maximum(np.diff(second_S), 1e-9)

    def draw(axes: Axes) -> None:
        axes.stairs(rate_S, second_S, color=FIRST, linewidth=1.2, baseline=None)
        axes.set(xlabel="seconds of work", ylabel="windows/s", ylim=(0, 1.1 * max(float(rate_S.max()), 1.0)))
        beside = axes.twinx()
        beside.step(second_S, workers_S, where="post", color=SECOND, linewidth=1)
        beside.step(second_S, nodes_S, where="post", color=INK, linewidth=0.8, linestyle="--")
        beside.set_ylim(0, 1.1 * max(float(workers_S.max()), float(nodes_S.max())))
        beside.yaxis.set_major_locator(MaxNLocator(4, integer=True))

    workers, nodes = (f"{of_S.min():.0f} to {of_S.max():.0f}" for of_S in (workers_S, nodes_S))
    mean = (answers_S[-1] - answers_S[0]) / max(second_S[-1] - second_S[0], 1e-9)
    alt = f"Timeline of judge {judge.name}: {mean:,.1f} windows/s on average, {workers} workers, {nodes} nodes"
    caption = (
        f"Windows/s while the judge answered (mean {mean:,.1f}), and the workers that had windows (thin line, {workers}) on "
        f"the nodes of the cluster (dashed, {nodes}; axis on the right). Time between attempts is left out; an endpoint has no "
        "workers."
    )
    return Plot(svg(draw, alt, f"{judge.name} timeline"), caption)


def _positions(judge: JudgeReport, valid: int) -> Plot:
    wins, expected = judge.position_wins, judge.expected_wins
    band = 2 * float(np.sqrt(expected * (1 - expected) / valid))

    def draw(axes: Axes) -> None:
        positions = np.arange(1, len(wins) + 1)
        axes.bar(positions, wins, width=0.6, color=FIRST)
        axes.axhspan(expected - band, expected + band, color=SECOND, alpha=0.25, linewidth=0)
        axes.axhline(expected, color=SECOND, linewidth=1.2)
        top = 1.15 * max(*wins, expected + band)
        axes.set(xlabel="position in the window", ylabel="share ranked first", ylim=(0, top), xlim=(0.4, len(wins) + 0.6))
        axes.set_xticks(positions)

    shares = ", ".join(f"position {p}: {percent(share)}" for p, share in enumerate(wins, 1))
    alt = f"Share of windows with each position ranked first, judge {judge.name}: {shares}; expected {percent(expected)}"
    worst = int(np.argmax(np.abs(np.array(wins) - expected)))
    caption = (
        f"A judge without position bias ranks each position first in {percent(expected)} of the windows (line; band: two "
        f"standard errors). Largest deviation: position {worst + 1} with {percent(wins[worst])}."
    )
    return Plot(svg(draw, alt, f"{judge.name} positions"), caption)
