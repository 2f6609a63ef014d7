"""The page of an audit: is this judge fit to judge, why, and what its answers look like."""

import functools
from typing import Any

import jinja2
import numpy as np
import yaml
from matplotlib.axes import Axes

from valueflow.judging.audit.exam import AuditMetric, AuditResult, Group
from valueflow.report.vidb_page import FIRST, INK, SECOND, Plot, _svg, templates


def audit_page(verdict: AuditResult, judge: dict[str, Any], anchors: str = "") -> str:
    """Return the page of a verdict as one self-contained HTML file.

    Args:
        verdict: what `audit.examine` found.
        judge: the judge's public config.
        anchors: where the known texts come from, in words or as a path; empty leaves it out.
    """
    return _template().render(
        verdict=verdict,
        anchors=anchors,
        plots=[plot for plot in (_distances(verdict.by_distance), _places(verdict.metric("position_effect"))) if plot],
        values=sorted(verdict.by_value, key=lambda group: (2.0 if group.estimate is None else group.estimate, group.label)),
        judge_yaml=yaml.safe_dump(judge, sort_keys=False, allow_unicode=True),
        config_yaml=yaml.safe_dump(verdict.config.public(), sort_keys=False),
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = templates()
    environment.filters |= {"decimal": _decimal}
    return environment.get_template("audit.html")


def _decimal(x: float | None, digits: int = 2) -> str:
    """A number with a real minus and no sign on what rounds to zero; a dash where there is none."""
    return "–" if x is None else f"{round(x, digits) + 0.0:,.{digits}f}".replace("-", "−")


def _distances(groups: list[Group]) -> Plot | None:
    """Accuracy against the distance of the ratings; no plot where no pair was answered."""
    shown = [group for group in groups if group.estimate is not None]
    if not shown:
        return None
    distance, share, low, high = (
        np.array([getattr(group, name) for group in shown], float) for name in ("distance", "estimate", "low", "high")
    )

    def draw(axes: Axes) -> None:
        axes.axhline(0.5, color=SECOND, linewidth=1.2)
        axes.annotate("chance", (1, 0.5), xycoords=("axes fraction", "data"), xytext=(-2, -10), textcoords="offset points",
                      ha="right", color=SECOND)  # fmt: skip
        axes.plot(distance, share, color=FIRST, linewidth=0.8, alpha=0.6)
        axes.errorbar(distance, share, [share - low, high - share], fmt="o", markersize=4, color=FIRST, linewidth=1.4)
        axes.set(xlabel="difference of the ratings", ylabel="share answered right", ylim=(-0.02, 1.02))
        axes.set_xlim(0, 1.08 * float(distance.max()))

    parts = [f"{g.label}: {_decimal(g.estimate)} ({_decimal(g.low)} to {_decimal(g.high)})" for g in shown]
    alt = f"Accuracy by difference of the ratings: {'; '.join(parts)}"
    caption = (
        "Accuracy of pairs that lie near together and far apart, each point a fifth of the pairs where ratings do not tie, "
        "with 95 % intervals. A judge that knows the value leaves the line of chance behind as pairs lie further apart."
    )
    return Plot(_svg(draw, alt, "audit distances"), caption)


def _places(effect: AuditMetric) -> Plot | None:
    """How often each place won; no plot where no pair was answered both ways."""
    if effect.estimate is None or effect.low is None or effect.high is None:
        return None
    share = np.array([0.5 + effect.estimate, 0.5 - effect.estimate])
    below, above = effect.estimate - effect.low, effect.high - effect.estimate

    def draw(axes: Axes) -> None:
        axes.axhspan(0.5 - effect.mark, 0.5 + effect.mark, color=SECOND, alpha=0.2, linewidth=0)
        axes.axhline(0.5, color=SECOND, linewidth=1.2)
        axes.bar([1, 2], share, width=0.5, color=FIRST, alpha=0.75)
        axes.errorbar([1, 2], share, [[below, above], [above, below]], fmt="none", color=INK, linewidth=1.4)
        axes.set(xlabel="place shown", ylabel="share that won", ylim=(0, 1.02), xlim=(0.4, 2.6))
        axes.set_xticks([1, 2])

    alt = f"Share of answers that each place won: first {_decimal(float(share[0]))}, second {_decimal(float(share[1]))}"
    caption = (
        "How often the text at each place won, over pairs that were answered both ways: without position effect both places "
        f"win half (line). The mark allows the band, {0.5 - effect.mark:.2f} to {0.5 + effect.mark:.2f}."
    )
    return Plot(_svg(draw, alt, "audit places"), caption)
