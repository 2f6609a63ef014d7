"""Figures of the pages: inline SVG whose colors follow the page's light or dark theme."""

import html
import io
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

# Matplotlib draws in these stand-in colors; `svg` replaces them by CSS variables, so one figure serves both themes.
INK, GRID, FIRST, SECOND = "#010101", "#020202", "#030303", "#040404"
VARIABLES = {INK: "var(--muted)", GRID: "var(--line)", FIRST: "var(--first)", SECOND: "var(--second)"}
# Fixed colors, readable on both themes. Scatter plots are rasterized, so they cannot use a CSS variable.
POINTS = "#4a8fd0"
GREEN = "#3f9b6d"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "axes.spines.top": False, "axes.spines.right": False, "grid.color": GRID, "grid.linewidth": 0.6, "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=[FIRST, SECOND]),
}  # fmt: skip


class Plot(NamedTuple):
    """A figure as inline SVG (its text alternative is the SVG's label) and its caption."""

    svg: Markup
    caption: str


def svg(draw: Callable[[Axes], None], alt: str, salt: str) -> Markup:
    """Return inline SVG of what `draw` draws on new axes.

    The SVG has no ids that could clash within a page, and its colors are CSS variables.

    Args:
        draw: draws on the axes; `resize` changes their size.
        alt: text alternative, the SVG's aria-label.
        salt: makes the ids of clip paths unique within the page; equal salts and data give equal SVG.
    """
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
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, variable)
    size = re.search(r'viewBox="[^"]*"', svg)
    assert size
    body = svg[svg.index(">") + 1 :]
    label = html.escape(alt)
    return Markup(f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {size[0]} role="img" aria-label="{label}">{body}')


def resize(axes: Axes, inches: tuple[float, float], bounds: tuple[float, float, float, float]) -> None:
    """Set the figure's size and the axes' bounds (left, bottom, width, height) as shares of it."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    figure.set_size_inches(*inches)
    axes.set_position(bounds)
