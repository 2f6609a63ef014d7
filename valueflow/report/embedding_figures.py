"""Figures of an embedding: a map of the values, the similarities of their vectors, the metrics of several encoders."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba

from valueflow.errors import InputError
from valueflow.hives.metrics import EmbeddingMetric
from valueflow.records import ValueId
from valueflow.report.formatting import percent
from valueflow.report.plots import FIRST, GREEN, GRID, INK, SECOND, Plot, resize, svg
from valueflow.theories import theories
from valueflow.theories.taxonomy import THEORIES

MARKERS = dict(zip(THEORIES, (("o", FIRST), ("s", SECOND), ("^", GREEN), ("D", INK)), strict=True))
FILLS = ((FIRST, 0.8), (SECOND, 0.8), (GREEN, 0.7), (FIRST, 0.4), (SECOND, 0.4))  # of the encoders: color, opacity
LABEL_SIZE = 7  # points
LETTER_WIDTH = 0.55  # mean, in units of the font size


def value_map(
    values: Sequence[ValueId], vectors_VD: np.ndarray, method: Literal["pca", "tsne"] = "pca", seed: int = 0, name: str = ""
) -> Plot:
    """Return a two-dimensional map of value vectors.

    Raises:
        InputError: there are fewer than four values.
    """
    if len(values) < 4:
        raise InputError(f"a map needs at least 4 values, not {len(values)}: {', '.join(values)}")
    unit_VD = _unit(vectors_VD)
    points_V2, projection = _project(unit_VD, method, seed)
    size = (7.0, 5.2)

    def draw(axes: Axes) -> None:
        resize(axes, size, (0.02, 0.02, 0.96, 0.87))
        for theory in dict.fromkeys(value.theory for value in values):
            x, y = points_V2[[value.theory == theory for value in values]].T
            marker, color = MARKERS[theory]
            axes.scatter(x, y, s=22, marker=marker, color=color, linewidths=0, label=theories()[theory].name)
        axes.margins(0.08, 0.05)
        axes.autoscale_view()
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, fontsize=LABEL_SIZE, handletextpad=0.2)
        _label(axes, points_V2, [value.node for value in values])

    cosine_VV = unit_VD @ unit_VD.T
    np.fill_diagonal(cosine_VV, -np.inf)
    first, second = sorted(divmod(int(cosine_VV.argmax()), len(values)))
    alt = f"Map of {len(values)} values: {', '.join(values)}; most similar are {values[first]} and {values[second]}"
    caption = (
        f"Directions of the vectors of {len(values)} values in two dimensions ({projection}). Nearby values are expressed "
        "similarly."
    )
    return Plot(svg(draw, alt, f"{name} value map {method}"), caption)


def similarity_map(values: Sequence[ValueId], vectors_VD: np.ndarray, name: str = "") -> Plot:
    """Return the cosines between all value vectors as a heat map, with lines between theories."""
    unit_VD = _unit(vectors_VD)
    cosine_VV = unit_VD @ unit_VD.T
    num = len(values)

    def draw(axes: Axes) -> None:
        resize(axes, (7.0, 7.0), (0.22, 0.02, 0.76, 0.76))
        rows, columns = np.indices((num, num)).reshape(2, -1)
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * 0.94 + 0.03
        cells = np.stack([columns, rows], -1)[:, None] + corners
        colors = [to_rgba(FIRST if c >= 0 else SECOND, min(abs(float(c)), 1)) for c in cosine_VV.ravel()]
        axes.add_collection(PolyCollection(list(cells), facecolors=colors, linewidths=0))
        axes.set(xlim=(0, num), ylim=(num, 0))
        axes.xaxis.tick_top()
        axes.set_xticks(np.arange(num) + 0.5, values, rotation=90, fontsize=LABEL_SIZE)
        axes.set_yticks(np.arange(num) + 0.5, values, fontsize=LABEL_SIZE)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for i in range(1, num):
            if values[i].theory != values[i - 1].theory:
                axes.axhline(i, color=INK, linewidth=0.6)
                axes.axvline(i, color=INK, linewidth=0.6)

    different_VV = np.array([[a.theory != b.theory for b in values] for a in values])
    across = np.where(different_VV, cosine_VV, -np.inf)
    i, j = divmod(int(across.argmax()), num)
    nearest = ""
    if different_VV.any():
        nearest = f"; across theories, {values[i]} and {values[j]} are most similar ({across[i, j]:.2f})"
    alt = f"Heat map of the cosines between {num} value vectors{nearest}"
    caption = f"Cosine between value vectors: blue is positive, orange negative; stronger colors are further from 0{nearest}."
    return Plot(svg(draw, alt, f"{name} value similarity"), caption)


def metric_bars(encoders: Mapping[str, Mapping[str, EmbeddingMetric]], names: Sequence[str]) -> Plot:
    """Return a bar chart of metrics by encoder, with 95 % intervals and the values of random vectors.

    Raises:
        InputError: a metric that no encoder has, or more than five encoders.
    """
    if len(encoders) > len(FILLS):
        raise InputError(f"a figure holds at most {len(FILLS)} encoders, not {len(encoders)}: {', '.join(encoders)}")
    for name in names:
        if not any(name in metrics for metrics in encoders.values()):
            raise InputError(f"no encoder has the metric {name!r}; they have {sorted(set().union(*encoders.values()))}")
    width = 0.8 / len(encoders)

    def draw(axes: Axes) -> None:
        resize(axes, (7.0, 3.2), (0.07, 0.2, 0.92, 0.66))
        for e, (encoder, metrics) in enumerate(encoders.items()):
            available = [(i, metrics[name]) for i, name in enumerate(names) if name in metrics]
            x = np.array([i - 0.4 + (e + 0.5) * width for i, _ in available])
            value = np.array([metric.value for _, metric in available])
            ends = np.array([(metric.low, metric.high) for _, metric in available]).T
            floor = [metric.floor for _, metric in available]
            color, alpha = FILLS[e]
            axes.bar(x, value, 0.9 * width, color=color, alpha=alpha, linewidth=0, label=encoder)
            axes.vlines(x, *ends, color=INK, linewidth=1)
            axes.hlines(floor, x - width / 2, x + width / 2, color=INK, linestyle=":", linewidth=1)
        axes.axhline(0, color=GRID, linewidth=0.6)
        axes.set_xticks(range(len(names)), [name.replace("_", " ").replace("/", "\n") for name in names], fontsize=LABEL_SIZE)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(encoders), frameon=False, fontsize=LABEL_SIZE)
        axes.grid(axis="y")

    parts = [
        f"{encoder} {name} {metrics[name].value:.2f} ({metrics[name].low:.2f} to {metrics[name].high:.2f})"
        for encoder, metrics in encoders.items()
        for name in names
        if name in metrics
    ]
    alt = "Metrics with 95 % intervals: " + "; ".join(parts)
    caption = "Bars: the metric; lines: its 95 % interval; dotted lines: random vectors on the same texts."
    return Plot(svg(draw, alt, f"{' '.join(encoders)} metrics"), caption)


def _project(unit_VD: np.ndarray, method: str, seed: int) -> tuple[np.ndarray, str]:
    """Points in two dimensions, and a description of the projection."""
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(8.0, (len(unit_VD) - 1) / 3)
        tsne = TSNE(2, perplexity=perplexity, metric="cosine", init="random", random_state=seed)
        description = f"t-SNE of cosine distances, perplexity {perplexity:.0f}; large distances are not meaningful"
        return tsne.fit_transform(unit_VD), description
    from sklearn.decomposition import PCA

    pca = PCA(2, random_state=seed)
    points_V2 = pca.fit_transform(unit_VD)
    return points_V2, f"principal components, {percent(pca.explained_variance_ratio_.sum(), 0)} of the variance"


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _label(axes: Axes, points_V2: np.ndarray, labels: list[str]) -> None:
    """Write each label next to its point, where it least overlaps the points, the earlier labels and the margin."""
    scale = 72 / axes.figure.dpi
    page = np.array(axes.bbox.extents) * scale
    page_V2 = axes.transData.transform(points_V2) * scale
    occupied = [np.array([x - 3, y - 3, x + 3, y + 3]) for x, y in page_V2]
    for point_2, (x, y), label in zip(points_V2, page_V2, labels, strict=True):
        width, height = LETTER_WIDTH * LABEL_SIZE * len(label), LABEL_SIZE
        above_below = [(dx, dy) for dy in (4, -4 - height) for dx in (-width / 2, 2, -2 - width)]
        offsets = [(5, -height / 2), (-5 - width, -height / 2), *above_below]
        boxes = [np.array([x + dx, y + dy, x + dx + width, y + dy + height]) for dx, dy in offsets]
        covered = [sum(_overlap(box, other) for other in occupied) + width * height - _overlap(box, page) for box in boxes]
        best = int(np.argmin(np.round(covered, 3)))
        occupied.append(boxes[best])
        axes.annotate(label, point_2, offsets[best], textcoords="offset points", fontsize=LABEL_SIZE)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return float(max(width, 0.0) * max(height, 0.0))
