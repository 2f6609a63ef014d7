"""The page of an audit: whether the judge passed, why, and what its answers look like."""

from typing import Any

import numpy as np
import yaml
from matplotlib.axes import Axes

from valueflow.judging.audit.result import AccuracyGroup, AuditMetric, AuditResult
from valueflow.report.formatting import decimal
from valueflow.report.plots import FIRST, INK, SECOND, Plot, svg
from valueflow.report.templates import render


def audit_page(result: AuditResult, judge: dict[str, Any], rated_texts: str = "") -> str:
    """Return the page of an audit result as one self-contained HTML file.

    Args:
        result: the audit result.
        judge: the judge's public config.
        rated_texts: source of the rated texts, a path or a description; empty omits it.
    """
    return render(
        "audit.html",
        result=result,
        rated_texts=rated_texts,
        plots=[plot for plot in (_distances(result.by_distance), _positions(result.metric("position_effect"))) if plot],
        values=sorted(result.by_value, key=lambda group: (2.0 if group.estimate is None else group.estimate, group.label)),
        judge_yaml=yaml.safe_dump(judge, sort_keys=False, allow_unicode=True),
        config_yaml=yaml.safe_dump(result.config.public(), sort_keys=False),
    )


def _distances(groups: list[AccuracyGroup]) -> Plot | None:
    """Accuracy against the difference of the ratings; no plot if all windows failed."""
    measured = [group for group in groups if group.estimate is not None]
    if not measured:
        return None
    distance, share, low, high = (
        np.array([getattr(group, name) for group in measured], float) for name in ("distance", "estimate", "low", "high")
    )

    def draw(axes: Axes) -> None:
        axes.axhline(0.5, color=SECOND, linewidth=1.2)
        axes.annotate("chance", (1, 0.5), xycoords=("axes fraction", "data"), xytext=(-2, -10), textcoords="offset points",
                      ha="right", color=SECOND)  # fmt: skip
        axes.plot(distance, share, color=FIRST, linewidth=0.8, alpha=0.6)
        axes.errorbar(distance, share, [share - low, high - share], fmt="o", markersize=4, color=FIRST, linewidth=1.4)
        axes.set(xlabel="difference of ratings", ylabel="accuracy", ylim=(-0.02, 1.02))
        axes.set_xlim(0, 1.08 * float(distance.max()))

    points = [f"{g.label}: {decimal(g.estimate)} ({decimal(g.low)} to {decimal(g.high)})" for g in measured]
    alt = f"Accuracy by difference of ratings: {'; '.join(points)}"
    caption = (
        "Accuracy by difference of ratings: each point is a fifth of the pairs (ties in the difference stay together), with "
        "its 95 % interval. The accuracy of a good judge rises above chance as the difference grows."
    )
    return Plot(svg(draw, alt, "audit distances"), caption)


def _positions(bias: AuditMetric) -> Plot | None:
    """How often each position won; no plot if no pair has valid answers in both orders."""
    if bias.estimate is None or bias.low is None or bias.high is None:
        return None
    share = np.array([0.5 + bias.estimate, 0.5 - bias.estimate])
    below, above = bias.estimate - bias.low, bias.high - bias.estimate

    def draw(axes: Axes) -> None:
        axes.axhspan(0.5 - bias.mark, 0.5 + bias.mark, color=SECOND, alpha=0.2, linewidth=0)
        axes.axhline(0.5, color=SECOND, linewidth=1.2)
        axes.bar([1, 2], share, width=0.5, color=FIRST, alpha=0.75)
        axes.errorbar([1, 2], share, [[below, above], [above, below]], fmt="none", color=INK, linewidth=1.4)
        axes.set(xlabel="position in the window", ylabel="share of wins", ylim=(0, 1.02), xlim=(0.4, 2.6))
        axes.set_xticks([1, 2])

    alt = f"Share of answers won by each position: first {decimal(float(share[0]))}, second {decimal(float(share[1]))}"
    caption = (
        "How often the text at each position won, over pairs with valid answers in both orders. Without position bias each "
        f"position wins half (line). The threshold allows the band from {0.5 - bias.mark:.2f} to {0.5 + bias.mark:.2f}."
    )
    return Plot(svg(draw, alt, "audit positions"), caption)
