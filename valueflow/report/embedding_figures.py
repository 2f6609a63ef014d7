"""Figures of an embedding: a map of the values, how similar their vectors are, metrics of several encoders side by side."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from valueflow.errors import InputError
from valueflow.hives.metrics import EmbeddingMetric
from valueflow.report.vidb_page import FIRST, GRID, INK, SECOND, Plot, _svg
from valueflow.theories import theories
from valueflow.theories.taxonomy import THEORIES

GREEN = "#3f9b6d"  # readable on light and dark pages
MARKS = dict(zip(THEORIES, (("o", FIRST), ("s", SECOND), ("^", GREEN), ("D", INK)), strict=True))
FILLS = ((FIRST, 0.8), (SECOND, 0.8), (GREEN, 0.7), (FIRST, 0.4), (SECOND, 0.4))  # one an encoder
SMALL = 7  # points, the size of labels
WIDE = 0.55  # width of a letter in units of its size


def value_map(
    values: Sequence[str], vectors_VD: np.ndarray, method: Literal["pca", "tsne"] = "pca", seed: int = 0, name: str = ""
) -> Plot:
    """Return a 2-D map of value vectors (`values` are ids such as svt:power); InputError for fewer than four values."""
    if len(values) < 4:
        raise InputError(f"a map needs at least 4 values, there are {len(values)}: {', '.join(values)}")
    at_V2, how = _plane(_unit(vectors_VD), method, seed)
    size = (7.0, 5.2)

    def draw(axes: Axes) -> None:
        _resize(axes, size, (0.02, 0.02, 0.96, 0.87))
        for theory in dict.fromkeys(value.partition(":")[0] for value in values):
            mine = [i for i, value in enumerate(values) if value.startswith(f"{theory}:")]
            mark, colour = MARKS[theory]
            axes.scatter(
                at_V2[mine, 0], at_V2[mine, 1], s=22, marker=mark, color=colour, linewidths=0, label=theories()[theory].name
            )
        axes.margins(0.08, 0.05)
        axes.autoscale_view()
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=SMALL, handletextpad=0.2)
        _label(axes, at_V2, [value.partition(":")[2] for value in values])

    near = _unit(vectors_VD) @ _unit(vectors_VD).T
    np.fill_diagonal(near, -np.inf)
    first, second = sorted(divmod(int(near.argmax()), len(values)))
    alt = f"Map of {len(values)} values: {', '.join(values)}; most alike are {values[first]} and {values[second]}"
    caption = (
        f"The vectors of {len(values)} values, as directions, in two dimensions ({how}). Values nearby are expressed alike."
    )
    return Plot(_svg(draw, alt, f"{name} value map {method}"), caption)


def similarity_map(values: Sequence[str], vectors_VD: np.ndarray, name: str = "") -> Plot:
    """Return the cosines between all value vectors as a heat map, theory by theory."""
    unit_VD = _unit(vectors_VD)
    cosine_VV = unit_VD @ unit_VD.T
    num = len(values)

    def draw(axes: Axes) -> None:
        _resize(axes, (7.0, 7.0), (0.22, 0.02, 0.76, 0.76))
        rows, columns = np.indices((num, num)).reshape(2, -1)
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * 0.94 + 0.03
        cells = np.stack([columns, rows], -1)[:, None] + corners
        flat = cosine_VV.ravel()
        colours = [to_rgba(FIRST if c >= 0 else SECOND, min(abs(float(c)), 1)) for c in flat]
        axes.add_collection(PolyCollection(list(cells), facecolors=colours, linewidths=0))
        axes.set(xlim=(0, num), ylim=(num, 0))
        axes.xaxis.tick_top()
        axes.set_xticks(np.arange(num) + 0.5, values, rotation=90, fontsize=SMALL)
        axes.set_yticks(np.arange(num) + 0.5, values, fontsize=SMALL)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for i in range(1, num):
            if values[i].partition(":")[0] != values[i - 1].partition(":")[0]:
                axes.axhline(i, color=INK, linewidth=0.6)
                axes.axvline(i, color=INK, linewidth=0.6)

    other = np.array([[a.partition(":")[0] != b.partition(":")[0] for b in values] for a in values])
    across = np.where(other, cosine_VV, -np.inf)
    i, j = divmod(int(across.argmax()), num)
    most = f"; across theories {values[i]} and {values[j]} are most alike ({across[i, j]:.2f})" if other.any() else ""
    alt = f"Heat map of the cosines between {num} value vectors{most}"
    caption = f"Cosine between value vectors: the stronger the colour, the further from 0; blue above, orange below{most}."
    return Plot(_svg(draw, alt, f"{name} value similarity"), caption)


def metric_bars(encoders: Mapping[str, Mapping[str, EmbeddingMetric]], names: Sequence[str]) -> Plot:
    """Return a bar a metric and encoder with its interval, and a line at what random vectors reach.

    Raises:
        InputError: no encoder has one of the metrics, or there are more than five encoders.
    """
    if len(encoders) > len(FILLS):
        raise InputError(f"at most {len(FILLS)} encoders fit into one figure, there are {len(encoders)}: {', '.join(encoders)}")
    for name in names:
        if not any(name in metrics for metrics in encoders.values()):
            raise InputError(f"no encoder has the metric {name!r}; they have {sorted(set().union(*encoders.values()))}")
    width = 0.8 / len(encoders)

    def draw(axes: Axes) -> None:
        _resize(axes, (7.0, 3.2), (0.07, 0.2, 0.92, 0.66))
        for e, (encoder, metrics) in enumerate(encoders.items()):
            there = [(i, metrics[name]) for i, name in enumerate(names) if name in metrics]
            at = np.array([i - 0.4 + (e + 0.5) * width for i, _ in there])
            value = np.array([metric.value for _, metric in there])
            ends = np.array([(metric.low, metric.high) for _, metric in there]).T
            colour, alpha = FILLS[e]
            axes.bar(at, value, 0.9 * width, color=colour, alpha=alpha, linewidth=0, label=encoder)
            axes.vlines(at, *ends, color=INK, linewidth=1)
            axes.hlines([m.floor for _, m in there], at - width / 2, at + width / 2, color=INK, linestyle=":", linewidth=1)
        axes.axhline(0, color=GRID, linewidth=0.6)
        axes.set_xticks(range(len(names)), [name.replace("_", " ").replace("/", "\n") for name in names], fontsize=SMALL)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(encoders), frameon=False, fontsize=SMALL)
        axes.grid(axis="y")

    said = [
        f"{encoder} {name} {metrics[name].value:.2f} ({metrics[name].low:.2f} to {metrics[name].high:.2f})"
        for encoder, metrics in encoders.items()
        for name in names
        if name in metrics
    ]
    alt = "Metrics with 95 % intervals: " + "; ".join(said)
    caption = "Bars: the metric; lines: its 95 % interval; dotted: what random vectors reach on the same texts."
    return Plot(_svg(draw, alt, f"{' '.join(encoders)} metrics"), caption)


def _plane(unit_VD: np.ndarray, method: str, seed: int) -> tuple[np.ndarray, str]:
    """Positions in two dimensions and how they were found."""
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(8.0, (len(unit_VD) - 1) / 3)
        found = TSNE(2, perplexity=perplexity, metric="cosine", init="random", random_state=seed).fit_transform(unit_VD)
        return found, f"t-SNE of cosine distances, perplexity {perplexity:.0f}; distances between far values mean little"
    from sklearn.decomposition import PCA

    pca = PCA(2, random_state=seed)
    found = pca.fit_transform(unit_VD)
    return found, f"principal components, {pca.explained_variance_ratio_.sum():.0%} of the variance"


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _resize(axes: Axes, inches: tuple[float, float], place: tuple[float, float, float, float]) -> None:
    figure = axes.figure
    assert isinstance(figure, Figure)
    figure.set_size_inches(*inches)
    axes.set_position(place)


def _label(axes: Axes, at_V2: np.ndarray, labels: list[str]) -> None:
    """Write each label beside its point where it covers least of the points, of the labels before it and of the margin."""
    scale = 72 / axes.figure.dpi
    page = np.array(axes.bbox.extents) * scale
    points_V2 = axes.transData.transform(at_V2) * scale
    taken = [np.array([x - 3, y - 3, x + 3, y + 3]) for x, y in points_V2]
    for at_2, (left, bottom), label in zip(at_V2, points_V2, labels, strict=True):
        wide, high = WIDE * SMALL * len(label), SMALL
        above_below = [(dx, dy) for dy in (4, -4 - high) for dx in (-wide / 2, 2, -2 - wide)]
        offsets = [(5, -high / 2), (-5 - wide, -high / 2), *above_below]
        boxes = [np.array([left + dx, bottom + dy, left + dx + wide, bottom + dy + high]) for dx, dy in offsets]
        covered = [sum(_overlap(box, other) for other in taken) + wide * high - _overlap(box, page) for box in boxes]
        best = int(np.argmin(np.round(covered, 3)))
        taken.append(boxes[best])
        axes.annotate(label, at_2, offsets[best], textcoords="offset points", fontsize=SMALL)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return float(max(width, 0.0) * max(height, 0.0))
