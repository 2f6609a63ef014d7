"""Figures of the page of a steerability study, from the rows of its tables.

Two colors that are told apart with every kind of color vision stand for the polarities: blue for levels above 0, orange for
levels below; shapes and positions say the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from valueflow.records import LIMIT, ValueId
from valueflow.report.formatting import percent, signed
from valueflow.report.plots import FIRST, GRID, INK, SECOND, Plot, resize, svg
from valueflow.theories import operational, theories

Row = Mapping[str, Any]
LEVELS = (-2, -1, 1, 2)
# Orange for a fall, blue for a rise; both ends are equally dark.
DIVERGING = LinearSegmentedColormap.from_list("diverging", ["#b65a12", "#e8b88f", "#f2f2f0", "#9fc0de", "#2f6fab"])
READINGS = ("as scored", "answered only", "Manski bounds", "Lee bounds")
COLUMNS = 4  # small multiples in a row


def name_of(value: str) -> str:
    """Return the name of a value."""
    value_id = ValueId(value)
    return theories()[value_id.theory].node(value_id.node).name


def bars(effects: Sequence[Row], margin: float, salt: str) -> Plot:
    """Return the figure of the scores at both outer levels around the default, one line a value, largest range first."""
    numbers = by_contrast(effects)
    order = sorted(numbers, key=lambda value: _range(numbers[value]))

    def draw(axes: Axes) -> None:
        resize(axes, (6.4, 0.9 + 0.27 * len(order)), (0.3, _below(len(order)), 0.66, 0.98 - _below(len(order))))
        axes.axvline(0, color=GRID, linewidth=0.8)
        for y, value in enumerate(order):
            of_value = numbers[value]
            default = of_value["default"]["estimate"]
            for contrast, color, offset in (("effect -2", SECOND, -0.17), ("effect +2", FIRST, 0.17)):
                if effect := of_value.get(contrast):
                    axes.barh(y + offset, effect["estimate"], left=default, height=0.28, color=color)
                    ends = [default + effect["low"], default + effect["high"]]
                    axes.plot(ends, [y + offset] * 2, color=INK, linewidth=1.1)
            axes.plot(default, y, marker="o", markersize=5, color=INK, markeredgewidth=0)
        axes.set_yticks(range(len(order)), [name_of(value) for value in order])
        axes.set(xlabel="mean score (points)", ylim=(-0.6, len(order) - 0.4))
        axes.grid(axis="x")

    moved = [value for value in order if _range(numbers[value]) > 0]
    widest = order[-1] if order else ""
    alt = "Scores at levels -2 and +2 around the default. " + "; ".join(
        f"{name_of(value)}: {_signed(numbers[value], 'effect -2')} and {_signed(numbers[value], 'effect +2')}"
        for value in order
    )
    caption = (
        "Mean score under level −2 (orange) and +2 (blue), as bars from the score under the neutral persona (dot), with "
        f"simultaneous 95 % intervals of the effects (thin lines). A value can be steered where a bar's line stays more than "
        f"the margin ({margin:g} points) from the dot" + (f"; the range is widest for {name_of(widest)}." if moved else ".")
    )
    return Plot(svg(draw, alt, f"{salt} bars"), caption)


def by_contrast(effects: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Return the rows of effects by value and contrast; values without a default are left out."""
    numbers: dict[str, dict[str, Row]] = {}
    for row in effects:
        numbers.setdefault(row["value"], {})[row["contrast"]] = row
    return {value: of_value for value, of_value in numbers.items() if "default" in of_value}


def _range(of_value: Mapping[str, Row]) -> float:
    plus, minus = (of_value.get(name, {}).get("estimate", 0.0) for name in ("effect +2", "effect -2"))
    return float(plus - minus)


def _signed(of_value: Mapping[str, Row], contrast: str) -> str:
    return signed(of_value[contrast]["estimate"]) if contrast in of_value else "not run"


def _below(num_rows: int) -> float:
    """Share of the height that labels of the x axis need, in a figure with so many rows."""
    return 0.5 / (0.9 + 0.27 * num_rows)


def doses(effects: Sequence[Row], verdicts: Sequence[Row], salt: str) -> Plot:
    """Return the figure of score against level, one small plot a value on one common scale."""
    numbers, types = by_contrast(effects), {row["value"]: row["type"] for row in verdicts}
    ends = [
        row["estimate"] + n["default"]["estimate"] for n in numbers.values() for c, row in n.items() if c.startswith("effect")
    ]
    ends += [n["default"]["estimate"] for n in numbers.values()]
    low, high = max(min(ends) - 1.5, -LIMIT), min(max(ends) + 1.5, LIMIT)

    def draw(axes: Axes) -> None:
        figure = _grid(axes, len(numbers), 1.5)
        for number, (value, of_value) in enumerate(sorted(numbers.items(), key=lambda item: name_of(item[0]))):
            cell = figure.axes[number + 1]
            default = of_value["default"]
            points = [(0, default["estimate"], default["low"], default["high"])]
            for level in LEVELS:
                if row := of_value.get(f"effect {level:+d}"):
                    points.append((level, *(default["estimate"] + row[k] for k in ("estimate", "low", "high"))))
            level_L, y_L, low_L, high_L = np.array(sorted(points)).T
            cell.axhline(default["estimate"], color=GRID, linewidth=0.8)
            cell.plot(level_L, y_L, color=FIRST, linewidth=1.2)
            cell.vlines(level_L, low_L, high_L, color=FIRST, linewidth=1.0)
            for level, y in zip(level_L, y_L, strict=True):
                marker = "o" if level == 0 else "^" if level > 0 else "v"
                cell.plot(
                    level,
                    y,
                    marker=marker,
                    markersize=5,
                    markeredgewidth=0,
                    color=INK if level == 0 else FIRST if level > 0 else SECOND,
                )
            cell.set_title(f"{_short(name_of(value), 24)}\n{types.get(value, '')}", fontsize=8, color=INK, loc="left")
            cell.set(ylim=(low, high), xlim=(-2.4, 2.4))
            cell.set_xticks([-2, -1, 0, 1, 2], ["−2", "−1", "0", "+1", "+2"])

    alt = "Score by level. " + "; ".join(
        f"{name_of(v)}: " + ", ".join(f"{level:+d} {_signed(n, f'effect {level:+d}')}" for level in LEVELS)
        for v, n in numbers.items()
    )
    caption = (
        "Mean score (points, vertical) against the requested level (horizontal; 0 is the neutral persona), with simultaneous "
        "95 % intervals of the effects; the verdict is below each name. A rising line with short intervals is a value that "
        "follows the request; a flat half means that this polarity does not respond."
    )
    return Plot(svg(draw, alt, f"{salt} doses"), caption)


def _grid(axes: Axes, number: int, height: float) -> Figure:
    """Replace axes by a grid of small ones; they follow the first, hidden one in `figure.axes`."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    rows = max(1, -(-number // COLUMNS))
    figure.set_size_inches(7.2, height * rows + 0.2)
    axes.set_visible(False)
    grid = figure.add_gridspec(
        rows,
        COLUMNS,
        left=0.05,
        right=0.99,
        top=1 - 0.38 / (height * rows + 0.2),
        bottom=0.42 / (height * rows + 0.2),
        hspace=0.75,
        wspace=0.3,
    )
    for number_ in range(number):
        figure.add_subplot(grid[divmod(number_, COLUMNS)])
    return figure


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def arrows(composition: Sequence[Row], salt: str) -> Plot:
    """Return the figure of the shifts of two values, alone and together in both orders, one small plot a pair."""

    def draw(axes: Axes) -> None:
        figure = _grid(axes, len(composition), 1.9)
        for number, row in enumerate(composition):
            cell = figure.axes[number + 1]
            start = row["mean_none_on_a"], row["mean_none_on_b"]
            for name, color, style in (("a", FIRST, "-"), ("b", SECOND, "-"), ("ab", INK, "-"), ("ba", INK, ":")):
                end = row[f"mean_{name}_on_a"], row[f"mean_{name}_on_b"]
                arrow = {"arrowstyle": "->", "color": color, "linestyle": style, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0}
                cell.annotate("", end, start, arrowprops=arrow)
                cell.plot(*end, alpha=0)
            total = [row[f"mean_a_on_{x}"] + row[f"mean_b_on_{x}"] - row[f"mean_none_on_{x}"] for x in "ab"]
            cell.plot(*total, marker="x", markersize=6, color=INK)
            cell.plot(*start, marker="o", markersize=4, color=INK)
            cell.set_title(row["name"], fontsize=8, color=INK, loc="left")
            cell.set_xlabel(f"{_short(name_of(row['a']), 18)} {row['level_a']:+d}", color=FIRST, fontsize=8, labelpad=1)
            cell.set_ylabel(f"{_short(name_of(row['b']), 18)} {row['level_b']:+d}", color=SECOND, fontsize=8, labelpad=1)
            cell.margins(0.18)

    alt = "Composition of two values. " + "; ".join(
        f"{name_of(row['a'])} {row['level_a']:+d} with {name_of(row['b'])} {row['level_b']:+d}: {row['name']}"
        for row in composition
    )
    caption = (
        "Mean scores from the default (dot) under the first value (blue arrow), the second (orange), and both together (grey: "
        "first value first; dotted: second value first), in standard deviations of the default. Where the grey arrows end at "
        "the cross, effects add up; where they follow one color, that value dominates; where they part, the order matters."
    )
    return Plot(svg(draw, alt, f"{salt} arrows"), caption)


def heat_map(
    names: Sequence[str], columns: Sequence[str], numbers: Mapping[tuple[str, str], Row], marked: Sequence[tuple[str, str]],
    words: tuple[str, str], salt: str,
) -> Plot:  # fmt: skip
    """Return a heat map with the number in each cell where there is room.

    Args:
        names: labels of the rows.
        columns: value ids of the columns.
        numbers: by row label and column: a row of a table with `standardized` and `estimate`.
        marked: cells that get a frame.
        words: text alternative and caption.
        salt: of the figure.
    """
    table = np.array([[_number(numbers.get((name, column))) for column in columns] for name in names])
    largest = float(np.nanmax(np.abs(table))) if np.isfinite(table).any() else 1.0

    labels = [_short(name_of(column), 26) for column in columns]
    side = 0.2 if len(columns) > 12 else 0.5  # inches of a cell
    left, bottom = 2.1, 0.25 + 0.075 * max(map(len, labels), default=0)
    across, up = side * len(columns), max(side, 0.24) * len(names)

    def draw(axes: Axes) -> None:
        # Never narrower than the other figures, so that the page does not enlarge it.
        width, height = max(left + across + 0.9, 7.2), bottom + up + 0.1
        resize(axes, (width, height), (left / width, bottom / height, across / width, up / height))
        norm = Normalize(-largest, largest)
        mesh = axes.pcolormesh(np.ma.masked_invalid(table), cmap=DIVERGING, norm=norm, edgecolors="face", linewidth=0.2)
        axes.invert_yaxis()
        axes.set_xticks(np.arange(len(columns)) + 0.5, labels, rotation=90, fontsize=8)
        axes.set_yticks(np.arange(len(names)) + 0.5, [_short(name, 34) for name in names], fontsize=8)
        for name, column in marked:
            axes.add_patch(_frame(list(columns).index(column), list(names).index(name)))
        for (y, x), number in np.ndenumerate(table):
            if side > 0.4 and np.isfinite(number):
                color = "#ffffff" if abs(number) > 0.75 * largest else "#1d2126"
                axes.text(x + 0.5, y + 0.5, signed(number), ha="center", va="center", fontsize=7, color=color)
        figure = axes.figure
        assert isinstance(figure, Figure)
        cax = figure.add_axes(((left + across + 0.12) / width, bottom / height, 0.1 / width, up / height))
        figure.colorbar(mesh, cax=cax).ax.tick_params(labelsize=7)

    return Plot(svg(draw, words[0], salt), words[1])


def _number(row: Row | None) -> float:
    number = None if row is None else row["standardized"]
    return np.nan if number is None else float(number)


def _frame(x: int, y: int) -> Rectangle:
    return Rectangle((x + 0.06, y + 0.06), 0.88, 0.88, fill=False, edgecolor="#1d2126", linewidth=1.1)


def side_effect_map(rows: Sequence[Row], level: int, salt: str) -> Plot:
    """Return the heat map of the effects of steering each value (rows) on the score of every value (columns)."""
    of_level = [row for row in rows if row["level"] == level]
    steered = sorted({row["steered"] for row in of_level}, key=_order)
    scored = sorted({row["scored"] for row in of_level}, key=_order)
    numbers = {(name_of(row["steered"]), row["scored"]): row for row in of_level}
    marked = [(name_of(value), value) for value in steered if value in scored]
    aside = [row for row in of_level if row["steered"] != row["scored"] and row["p_fdr"] is not None and row["p_fdr"] < 0.05]
    strongest = max(aside, key=lambda row: abs(row["standardized"] or 0.0), default=None)
    total = sum(row["steered"] != row["scored"] for row in of_level)
    conclusion = f"{len(aside)} of {total} side effects are beyond chance (false discovery rate 5 %)"
    if strongest:
        conclusion += (
            f"; the strongest is that of {name_of(strongest['steered'])} on {name_of(strongest['scored'])} "
            f"({signed(strongest['standardized'], 2)})"
        )
    caption = (
        f"Change of every value's score (columns) when a value is steered to {signed(level, 0)} (rows), in standard deviations "
        f"of the default; framed: the value itself. Colored cells outside the frames are side effects: {conclusion}."
    )
    alt = f"Side effects at level {level:+d}: {conclusion}"
    names = [name_of(value) for value in steered]
    return heat_map(names, scored, numbers, marked, (alt, caption), f"{salt} side effects {level}")


def _order(value: str) -> int:
    """Place of a value in the order of the theories."""
    return operational().index(ValueId(value)) if value in operational() else len(operational())


def set_map(rows: Sequence[Row], salt: str) -> Plot:
    """Return the heat map of the shift of every value under sets of values."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    label = {
        name: " + ".join(f"{name_of(part.rpartition(' ')[0])} {part.rpartition(' ')[2]}" for part in name.split(" + "))
        for name in sets
    }
    # Long sets would not fit beside the map: they get a number, and the caption says which it is.
    short = {name: label[name] if len(label[name]) <= 34 else f"set {number}" for number, name in enumerate(sets, 1)}
    columns = sorted({row["value"] for row in rows}, key=_order)
    numbers = {(short[row["set"]], row["value"]): row for row in rows}
    marked = [(short[row["set"]], row["value"]) for row in rows if row["level"] is not None]
    keys = "; ".join(f"{short[name]}: {label[name]}" for name in sets if short[name] != label[name])
    caption = (
        "Change of every value's score (columns) under a set of values in one prompt (rows), mean over the orders of the "
        "prompt, in standard deviations of the default; framed: members of the set. A member without color is not heard."
        + (f" {keys}." if keys else "")
    )
    alt = "Shift of each member of a set. " + "; ".join(
        f"{short[row['set']]}, {name_of(row['value'])}: {signed(row['standardized'])}"
        for row in rows
        if row["level"] is not None
    )
    return heat_map([short[name] for name in sets], columns, numbers, marked, (alt, caption), f"{salt} sets")


def refusal_bounds(rows: Sequence[Row], margin: float, salt: str) -> Plot:
    """Return the figure of the readings of every effect that has non-answers."""
    effects = list(dict.fromkeys((row["value"], row["level"]) for row in rows))
    number = {effect: [row for row in rows if (row["value"], row["level"]) == effect] for effect in effects}

    def draw(axes: Axes) -> None:
        height = 1.0 + 0.62 * len(effects)
        resize(axes, (6.4, height), (0.3, 0.5 / height, 0.66, 1 - 0.85 / height))
        axes.axvspan(-margin, margin, color=GRID, alpha=0.5, linewidth=0)
        axes.axvline(0, color=INK, linewidth=0.6)
        for y, effect in enumerate(reversed(effects)):
            for reading, row in enumerate(number[effect]):
                place = y + 0.27 - 0.18 * reading
                color = (INK, INK, SECOND, FIRST)[reading]
                axes.plot([row["interval_low"], row["interval_high"]], [place] * 2, color=color, linewidth=0.9)
                axes.plot([row["low"], row["high"]], [place] * 2, color=color, linewidth=4, solid_capstyle="butt")
                axes.plot((row["low"] + row["high"]) / 2, place, color=color, marker="osDv"[reading], markersize=4,
                          label=READINGS[reading] if y == 0 else None)  # fmt: skip
        labels = [f"{_short(name_of(value), 24)} {signed(level, 0)}\n{percent(number[value, level][0]['share'], 0)} non-answers"
                  for value, level in reversed(effects)]  # fmt: skip
        axes.set_yticks(range(len(effects)), labels, fontsize=8)
        axes.set(xlabel="effect against the neutral persona (points)", ylim=(-0.6, len(effects) - 0.4))
        axes.legend(
            loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=4, fontsize=7, frameon=False, handlelength=1, columnspacing=1
        )

    depends = [effect for effect in effects if number[effect][0]["verdict"] == "depends on refusals"]
    conclusion = (
        f"the effect is unknown: {len(depends)} of {len(effects)} verdicts depend on refusals"
        if depends
        else "the effect would be unknown; here no verdict depends on refusals"
    )
    alt = f"Readings of the effects with non-answers: {conclusion}. " + "; ".join(
        f"{name_of(v)} {x:+d}: " + ", ".join(f"{r['reading']} {signed(r['low'])} to {signed(r['high'])}" for r in number[v, x])
        for v, x in effects
    )
    caption = (
        "Each effect with non-answers in four readings: scores as they stand, answers only, and bounds for whatever the "
        f"non-answers would have said (Manski) or for what is answered at both levels (Lee). Thick: estimate or bounds; thin: "
        f"intervals; shaded: ± the margin. Where readings lie on different sides of the shade, {conclusion}."
    )
    return Plot(svg(draw, alt, f"{salt} refusals"), caption)
