"""Figures are inline SVG that names every value, in the colours of the page."""

import re

import numpy as np
import pytest
from outline import Outline

from valueflow.errors import InputError
from valueflow.hives.metrics import EmbeddingMetric
from valueflow.report.embedding_figures import metric_bars, similarity_map, value_map
from valueflow.theories import operational

VECTORS = np.random.default_rng(0).standard_normal((32, 24))


def checked(svg: str) -> str:
    """The text of a figure that is well-formed, loads nothing and has no fixed stand-in colours."""
    outline = Outline(svg)
    assert len(outline.figures) == 1
    assert outline.figures[0]
    assert not outline.ids or all(re.fullmatch(r"[a-zA-Z0-9]+", i) for i in outline.ids)
    assert svg.startswith("<svg")
    assert svg.rstrip().endswith("</svg>")
    assert "var(--first)" in svg
    assert not re.search(r"#0[1-4]0[1-4]0[1-4]", svg)
    assert "<script" not in svg
    assert "<style" not in svg
    return re.sub(r"<[^>]*>", " ", svg)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_the_map_names_every_value_and_theory(method):
    plot = value_map(operational(), VECTORS, method)
    text = checked(plot.svg)
    for value in operational():
        assert value.node in text
    assert "Moral Foundations" in text
    assert ("t-SNE" if method == "tsne" else "principal") in plot.caption
    assert plot == value_map(operational(), VECTORS, method)


def test_the_map_names_the_most_similar_values():
    center = np.repeat(np.eye(4), 8, axis=0) * 5
    plot = value_map(operational(), center + 0.1 * VECTORS[:, :4])
    assert "most similar are" in plot.svg


def test_the_heat_map_names_the_most_similar_values_across_theories():
    vectors = VECTORS.copy()
    vectors[20] = vectors[3] + 0.01
    plot = similarity_map(operational(), vectors)
    checked(plot.svg)
    assert f"{operational()[3]} and {operational()[20]}" in plot.caption
    assert plot.svg.count("fill-opacity") > 32 * 16


def test_bars_show_encoders_that_lack_a_metric():
    both = {"pairwise": EmbeddingMetric(0.71, 0.68, 0.74, 0.5, 900), "correlation": EmbeddingMetric(-0.1, -0.2, 0.0, 0.0, 10)}
    plot = metric_bars(
        {"base <1>": {"pairwise": EmbeddingMetric(0.57, 0.55, 0.59, 0.5, 900)}, "hives": both}, ["pairwise", "correlation"]
    )
    text = checked(plot.svg)
    assert "base" in text
    assert "hives" in text
    assert "hives pairwise 0.71 (0.68 to 0.74)" in plot.svg
    assert "&lt;1&gt;" in plot.svg


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(InputError, match="at least 4 values"):
        value_map(operational()[:3], VECTORS[:3])
    with pytest.raises(InputError, match="no encoder has the metric 'pair'"):
        metric_bars({"a": {"pairwise": EmbeddingMetric(1, 1, 1, 0, 1)}}, ["pair"])
    with pytest.raises(InputError, match="at most 5 encoders"):
        metric_bars({str(i): {} for i in range(6)}, [])
