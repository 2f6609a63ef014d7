"""The page of a trained encoder: metrics compared with other encoders, the loss, and maps of the values."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from valueflow.hives.metrics import EmbeddingMetric
from valueflow.records import ValueId
from valueflow.report.embedding_figures import FILLS, metric_bars, similarity_map, value_map
from valueflow.report.formatting import DASH, decimal, interval
from valueflow.report.model_card import METRICS, Corpus
from valueflow.report.plots import FIRST, INK, Plot, svg
from valueflow.report.templates import render
from valueflow.theories import theories

SMOOTHING = 50  # steps in the moving average of the loss
MEANINGS = {
    "pairwise": "Of two texts, is the one that shares more with a third text also nearer to it? 0.5 by chance.",
    "strict": "The same for five texts with five different relations: are all in the right order?",
    "correlation": "Does the cosine of two texts increase with the number of levels, and the direction, that they share?",
    "orthogonality": "1 minus the mean absolute cosine of a theory's value vectors. Random vectors are high too.",
    "label_accuracy": "Is the majority value of the nearest texts one of the text's values?",
    "direction_accuracy": "Do most of the nearest texts of the same value have the text's direction?",
}


class MetricRow(NamedTuple):
    """A metric in one theory, or its mean over theories."""

    theory: str
    cells: list[tuple[str, str]]  # per encoder: number, interval
    floor: str  # of random vectors
    num: int


def training_page(
    name: str,
    encoders: Mapping[str, Mapping[str, EmbeddingMetric]],
    values: Sequence[ValueId],
    vectors_VD: np.ndarray,
    losses: Sequence[float],
    corpora: Sequence[Corpus],
    settings: Mapping[str, object],
    measured_on: str,
) -> str:
    """Return the page as one self-contained HTML file.

    Args:
        name: name of the encoder, the first of `encoders`.
        encoders: metrics by encoder and name: "<metric>" is over all theories, "<metric>/<theory>" of one.
        values: the values that have vectors (hives.metrics.value_vectors).
        vectors_VD: their vectors.
        losses: loss of each step.
        corpora: training data.
        settings: training settings.
        measured_on: description of the evaluation texts.
    """
    groups = {kind: rows for kind in METRICS if (rows := _rows(kind, encoders))}
    plotted = dict(list(encoders.items())[: len(FILLS)])
    plots = [_loss_curve(losses), metric_bars(plotted, [kind for kind in groups if any(kind in m for m in plotted.values())])]
    maps = [value_map(values, vectors_VD)] if len(values) > 3 else []
    maps += [similarity_map(values, vectors_VD)] if len(values) > 1 else []
    return render(
        "training.html", name=name, encoders=list(encoders), groups=groups, titles=METRICS, meanings=MEANINGS, plots=plots,
        maps=maps, corpora=corpora, settings=settings, measured_on=measured_on,
    )  # fmt: skip


def _rows(kind: str, encoders: Mapping[str, Mapping[str, EmbeddingMetric]]) -> list[MetricRow]:
    names = [name for name in dict.fromkeys(n for metrics in encoders.values() for n in metrics) if name.split("/")[0] == kind]
    rows = []
    for name in names:
        theory = name.partition("/")[2]
        metrics = [metrics.get(name) for metrics in encoders.values()]
        first = next(metric for metric in metrics if metric)
        title = theories()[theory].name if theory else "mean"
        rows.append(MetricRow(title, [_cell(m) for m in metrics], decimal(first.floor, 3), first.count))
    return rows


def _cell(metric: EmbeddingMetric | None) -> tuple[str, str]:
    if metric is None:
        return DASH, ""
    return decimal(metric.value, 3), interval(metric.low, metric.high, 3)


def _loss_curve(losses: Sequence[float]) -> Plot:
    """The loss of each step, and its moving average."""
    loss_S = np.asarray(losses, float)
    width = min(SMOOTHING, len(loss_S))
    mean_S = np.convolve(loss_S, np.full(width, 1 / width), "valid")

    def draw(axes: Axes) -> None:
        axes.plot(np.arange(1, len(loss_S) + 1), loss_S, color=INK, linewidth=0.4, alpha=0.4)
        axes.plot(np.arange(width, len(loss_S) + 1), mean_S, color=FIRST, linewidth=1.6)
        axes.set(xlabel="step", ylabel="loss")
        axes.grid(axis="y")

    alt = f"Loss over {len(loss_S):,} steps: from {mean_S[0]:.3f} to {mean_S[-1]:.3f}, averages over {width} steps"
    return Plot(svg(draw, alt, "training curve"), f"Loss of each step, and its moving average over {width} steps.")
