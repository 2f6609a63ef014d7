"""The page of profiles: a circle with confidence bands and ranked intervals for each unit, beside a reference in grey."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from valueflow.numerics.intervals import Z95
from valueflow.profiles.circle import CIRCLE, SECTORS, fit_wave
from valueflow.profiles.divergence import Side, diverge
from valueflow.profiles.export import differences, rows, sentence
from valueflow.profiles.reliability import over_values
from valueflow.profiles.table import UnitProfiles
from valueflow.records import ValueId
from valueflow.report.templates import render
from valueflow.theories import theories

MAX_UNITS = 12
SIZE, RADIUS = 420, 130  # of the circle, pixels
SPAN = 1.5  # standardized: rings at -1.5, 0 and 1.5, unless a profile needs more
SOME = 3  # most different values that are named
LISTED = 30  # differences of models that are listed; differences.csv has all


@dataclass(frozen=True)
class ProfileReport:
    """Contents of the page."""

    build_id: str
    profiles: UnitProfiles
    scale: dict[str, float]
    relative_slope_error: dict[str, float]
    vidb_version: str
    scored_by: str
    rests_on: dict[str, str]
    reliability: dict[str, float | None]
    texts: dict[str, str]  # by text id, the statements of the units on the page
    config_yaml: str
    units: list[str] = field(default_factory=list)
    reference: str = ""


class UnitSection(NamedTuple):
    """One unit: its figure, its rows from high to low, and what is said of it."""

    name: str
    circle: Markup
    rows: list[dict]
    missing: list[str]
    reliability: float
    wave: str
    different: list[str]
    statements: list[tuple[str, list[str]]]


def profile_page(report: ProfileReport) -> str:
    """Return the page as one self-contained HTML file; at most 12 units have a section, all are in the table `profiles`."""
    units = (report.units or report.profiles.units)[:MAX_UNITS]
    reliability_U = over_values(report.profiles.halves_UV2S, np.array([report.scale[v] for v in report.profiles.values]))
    sections = [_section(report, unit, float(reliability_U[report.profiles.of(unit)])) for unit in units]
    names = {value: theories()[value.theory].node(value.node).name for value in report.profiles.values}
    reference = report.reference or (
        "the only unit" if len(report.profiles.units) == 1 else f"the mean of {len(report.profiles.units)} units"
    )
    beside = _side_by_side(report, units, names) if len(units) > 1 else []
    models = _model_differences(report, names) if report.profiles.influence_QUV is not None and len(units) > 1 else None
    return render(
        "profile.html", report=report, sections=sections, names=names, reference=reference, units=units, beside=beside,
        models=models,
    )  # fmt: skip


def _side_by_side(report: ProfileReport, units: list[str], names: dict[ValueId, str]) -> list[tuple[str, list[str]]]:
    """By value its name, and mean and interval of each unit."""
    index = [report.profiles.of(unit) for unit in units]
    table = [report.profiles.columns[name][index] for name in ("intensity", "low", "high")]
    return [(name, [_cell(*(x[u, v] for x in table)) for u in range(len(units))]) for v, name in enumerate(names.values())]


def _cell(intensity: float, low: float, high: float) -> str:
    return "missing" if not math.isfinite(intensity) else f"{intensity:+.1f} ({low:+.1f} to {high:+.1f})".replace("-", "−")


class ModelDifferences(NamedTuple):
    """Differences of models that hold for all pairs and values together."""

    number: int
    of: int
    lines: list[str]


def _model_differences(report: ProfileReport, names: dict[ValueId, str]) -> ModelDifferences:
    profiles = report.profiles
    pairs, found = differences(profiles, report.scale, report.relative_slope_error)
    certain = sorted(zip(*np.nonzero(found.adjusted_PV < 0.05), strict=True), key=lambda at: found.p_PV[at])
    lines = [
        f"{names[profiles.values[v]]}: {profiles.units[pairs[p][0]]} less {profiles.units[pairs[p][1]]} "
        + _cell(found.difference_PV[p, v], found.low_PV[p, v], found.high_PV[p, v])
        for p, v in certain[:LISTED]
    ]
    return ModelDifferences(len(certain), int(np.isfinite(found.difference_PV).sum()), lines)


def _section(report: ProfileReport, unit: str, reliability: float) -> UnitSection:
    profiles, u = report.profiles, report.profiles.of(unit)
    own = UnitProfiles([unit], profiles.values, {k: x[u : u + 1] for k, x in profiles.columns.items()}, np.empty(0), {})
    listed = []
    for value, row in zip(profiles.values, rows(own), strict=True):
        name = theories()[value.theory].node(value.node).name
        listed.append(row | {"id": value, "name": name, "sentence": sentence(unit, name, row)})
    ranked = sorted((row for row in listed if row["intensity"] is not None), key=lambda row: -row["intensity"])
    values = [
        (row["name"], [report.texts[i] for i in profiles.statements[unit, row["id"]] if i in report.texts]) for row in ranked
    ]
    return UnitSection(
        unit, _circle(report, u), ranked, [row["sentence"] for row in listed if row["intensity"] is None], reliability,
        _wave(report, u), _different(report, u), [(name, texts) for name, texts in values if texts],
    )  # fmt: skip


def _wave(report: ProfileReport, u: int) -> str:
    profiles = report.profiles
    columns = (profiles.columns[name][u] for name in ("centred", "centred_error"))
    wave = fit_wave(*(dict(zip(profiles.values, column, strict=True)) for column in columns))
    if wave is None:
        return ""
    name = theories()["svt"].node(wave.nearest.node).name
    return (
        f"Over Schwartz's circle the profile peaks near {name} (± {Z95 * wave.peak_error:.0f}° of 360°); a wave of one period "
        f"explains {wave.r2:.0%} of the differences between its values."
    )


def _reference_mean(report: ProfileReport, column: str) -> np.ndarray:
    profiles = report.profiles
    if report.reference:
        return profiles.columns[column][profiles.of(report.reference)]
    known = np.isfinite(profiles.columns[column])
    total = np.where(known, profiles.columns[column], 0).sum(0)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)


def _different(report: ProfileReport, u: int) -> list[str]:
    """The values on which a unit differs most from the reference, corrected over its values."""
    profiles = report.profiles
    if report.reference == profiles.units[u] or len(profiles.units) < 2:
        return []
    own, own_error, own_clusters = (
        profiles.columns[name][u : u + 1] for name in ("intensity", "standard_error", "num_clusters")
    )  # fmt: skip
    mean = _reference_mean(report, "intensity")[None]
    if report.reference:
        error = profiles.columns["standard_error"][profiles.of(report.reference)][None]
        clusters = profiles.columns["num_clusters"][profiles.of(report.reference)][None]
    else:  # the mean over units is known better than any of them
        error = np.nanstd(profiles.columns["intensity"], 0)[None] / math.sqrt(len(profiles.units))
        clusters = own_clusters if profiles.influence_QUV is not None else np.full(mean.shape, float(len(profiles.units)))
    scale_V, slope_V = (np.array([of[v] for v in profiles.values]) for of in (report.scale, report.relative_slope_error))
    own_Q1V, reference_Q1V = _influences(report, u)
    found = diverge(Side(own, own_error, own_clusters, own_Q1V), Side(mean, error, clusters, reference_Q1V), scale_V, slope_V)
    order = sorted(np.flatnonzero(found.adjusted_PV[0] < 0.05), key=lambda v: found.p_PV[0, v])[:SOME]
    return [
        f"{theories()[profiles.values[v].theory].node(profiles.values[v].node).name}: {found.difference_PV[0, v]:+.1f} points "
        f"({found.low_PV[0, v]:+.1f} to {found.high_PV[0, v]:+.1f})"
        for v in order
    ]


def _influences(report: ProfileReport, u: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The influence of common queries on a model and on the reference (Q, 1, V each); None without common ones."""
    profiles = report.profiles
    if profiles.influence_QUV is None:
        return None, None
    if report.reference:
        reference_QV = profiles.influence_QUV[:, profiles.of(report.reference)]
    else:  # a unit without the value has no influence, and is not in the mean
        reference_QV = profiles.influence_QUV.sum(1) / np.maximum(np.isfinite(profiles.columns["intensity"]).sum(0), 1)
    return profiles.influence_QUV[:, u, None], reference_QV[:, None]


def _circle(report: ProfileReport, u: int) -> Markup:
    """The centred profile over Schwartz's circle with its band; the reference in grey. Nothing below 3 values of svt."""
    profiles = report.profiles
    place = {value: i for i, value in enumerate(CIRCLE) if value in profiles.values}
    columns = {
        name: _on_circle(profiles.columns[name][u], profiles.values) for name in ("centred", "centred_low", "centred_high")
    }
    reference = _on_circle(_reference_mean(report, "centred"), profiles.values)
    if np.isfinite(columns["centred"]).sum() < 3:
        return Markup("")
    largest = max(SPAN, float(np.nanmax(np.abs([*columns["centred_low"], *columns["centred_high"], *reference]))))
    at = [2 * math.pi * i / len(CIRCLE) - math.pi / 2 for i in range(len(CIRCLE))]

    def point(i: int, x: float) -> str:
        radius = RADIUS * (0.5 + 0.5 * x / largest) + 10
        return f"{SIZE / 2 + radius * math.cos(at[i]):.1f},{SIZE / 2 + radius * math.sin(at[i]):.1f}"

    def ring(column: np.ndarray) -> str:
        return " ".join(point(i, x) for i, x in enumerate(column) if math.isfinite(x))

    marks = [_sector(first, last, name) for name, (first, last) in SECTORS.items()]
    marks += [f'<circle class="ring" cx="{SIZE / 2}" cy="{SIZE / 2}" r="{RADIUS * r + 10:.1f}"/>' for r in (0, 0.5, 1)]
    marks += [f'<polygon class="reference" points="{ring(reference)}"/>']
    outline = " ".join(f"M {ring(columns[name])} Z" for name in ("centred_high", "centred_low"))
    marks += [f'<path class="band" d="{outline}"/>', f'<polygon class="profile" points="{ring(columns["centred"])}"/>']
    for value, i in place.items():
        x, y = (float(c) for c in point(i, largest * 1.25).split(","))
        anchor = "middle" if abs(math.cos(at[i])) < 0.3 else "start" if math.cos(at[i]) > 0 else "end"
        name = theories()["svt"].node(value.node).name
        marks.append(f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}">{name}</text>')
    label = f"Centred profile of {profiles.units[u]} over Schwartz's circle; the same numbers are in the table"
    body = Markup("").join(Markup(mark) for mark in marks)
    svg = Markup('<svg class="wheel" viewBox="-60 0 {} {}" role="img" aria-label="{}">{}</svg>')
    return svg.format(SIZE + 120, SIZE, label, body)


def _sector(first: int, last: int, name: str) -> str:
    """A higher-order value behind the circle."""
    start, end = (2 * math.pi * (i + shift) / len(CIRCLE) - math.pi / 2 for i, shift in ((first, -0.5), (last, 0.5)))
    radius = RADIUS + 18
    ends = [f"{SIZE / 2 + radius * math.cos(a):.1f} {SIZE / 2 + radius * math.sin(a):.1f}" for a in (start, end)]
    arc = f"M {SIZE / 2} {SIZE / 2} L {ends[0]} A {radius} {radius} 0 0 1 {ends[1]} Z"
    return f'<path class="sector" d="{arc}"><title>{name}</title></path>'


def _on_circle(column: np.ndarray, values: tuple[ValueId, ...]) -> np.ndarray:
    by_value = dict(zip(values, column, strict=True))
    return np.array([by_value.get(value, np.nan) for value in CIRCLE])
