"""The page of a trained encoder: its metrics beside those of others, its curve, and maps of the values in its space."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jinja2
import numpy as np
from matplotlib.axes import Axes

from valueflow.hives.metrics import EmbeddingMetric
from valueflow.report.embedding_figures import metric_bars, similarity_map, value_map
from valueflow.report.model_card import METRICS, Corpus
from valueflow.report.vidb_page import FIRST, INK, Plot, _svg, templates
from valueflow.theories import theories

SMOOTH = 50  # steps whose mean a point of the curve is
MEANINGS = {
    "pairwise": "Of two texts, is the one that shares more with a third also the nearer one? Right half the time by chance.",
    "strict": "The same for five texts of five relations: are all in the right order?",
    "correlation": "Do cosines grow with the number of levels and the direction that two texts share?",
    "orthogonality": "1 less the mean absolute cosine between a theory's value vectors. High by chance: alone it says nothing.",
    "label_accuracy": "Is the value that most of the nearest texts have one of the text's?",
    "direction_accuracy": "Do most of the nearest texts of the same value have the text's direction?",
}


class Line(NamedTuple):
    """A metric in one theory, or the mean over theories: a cell an encoder (number, interval), random vectors, how many."""

    theory: str
    cells: list[tuple[str, str]]
    floor: str
    num: int


def training_page(
    name: str,
    encoders: Mapping[str, Mapping[str, EmbeddingMetric]],
    values: Sequence[str],
    vectors_VD: np.ndarray,
    losses: Sequence[float],
    corpora: Sequence[Corpus],
    settings: Mapping[str, object],
    measured_on: str,
) -> str:
    """Return the page.

    Args:
        name: of the encoder; the first of `encoders` is its own.
        encoders: metrics by encoder and name, "<metric>" over theories and "<metric>/<theory>".
        values: ids of the values that have vectors (metrics.value_vectors).
        vectors_VD: the vectors.
        losses: of each step.
        corpora: what was learnt from.
        settings: how it was trained.
        measured_on: names the texts behind the metrics.
    """
    groups = {kind: lines for kind in METRICS if (lines := _lines(kind, encoders))}
    shown = dict(list(encoders.items())[:5])
    plots = [_curve(losses), metric_bars(shown, [kind for kind in groups if any(kind in m for m in shown.values())])]
    # A map of the plane needs four values.
    maps = [value_map(values, vectors_VD)] if len(values) > 3 else []
    maps += [similarity_map(values, vectors_VD)] if len(values) > 1 else []
    return _template().render(
        name=name, encoders=list(encoders), groups=groups, titles=METRICS, meanings=MEANINGS, plots=plots,
        maps=maps, corpora=corpora, settings=settings, measured_on=measured_on,
    )  # fmt: skip


def _lines(kind: str, encoders: Mapping[str, Mapping[str, EmbeddingMetric]]) -> list[Line]:
    names = [name for name in dict.fromkeys(n for metrics in encoders.values() for n in metrics) if name.split("/")[0] == kind]
    lines = []
    for name in names:
        theory = name.partition("/")[2]
        found = [metrics.get(name) for metrics in encoders.values()]
        first = next(metric for metric in found if metric)
        lines.append(
            Line(theories()[theory].name if theory else "mean", [_cell(m) for m in found], f"{first.floor:.3f}", first.count)
        )
    return lines


def _cell(metric: EmbeddingMetric | None) -> tuple[str, str]:
    if metric is None:
        return "–", ""
    return f"{metric.value:.3f}", "" if np.isnan(metric.low) else f"{metric.low:.3f} to {metric.high:.3f}"


def _curve(losses: Sequence[float]) -> Plot:
    """The loss of each step, and its moving mean."""
    loss_S = np.asarray(losses, float)
    width = min(SMOOTH, len(loss_S))
    mean_S = np.convolve(loss_S, np.full(width, 1 / width), "valid")

    def draw(axes: Axes) -> None:
        axes.plot(np.arange(1, len(loss_S) + 1), loss_S, color=INK, linewidth=0.4, alpha=0.4)
        axes.plot(np.arange(width, len(loss_S) + 1), mean_S, color=FIRST, linewidth=1.6)
        axes.set(xlabel="step", ylabel="loss")
        axes.grid(axis="y")

    alt = f"Loss over {len(loss_S):,} steps: from {mean_S[0]:.3f} to {mean_S[-1]:.3f}, means of {width} steps"
    return Plot(_svg(draw, alt, "training curve"), f"The loss of every step, and its mean over {width} steps.")


@functools.cache
def _template() -> jinja2.Template:
    return templates().get_template("training.html")
