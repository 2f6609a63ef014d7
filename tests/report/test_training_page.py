"""The page of a trained encoder: every metric of every encoder, its figures, nothing loaded, names stay text."""

import re

import numpy as np
from outline import Outline

from valueflow.hives.metrics import EmbeddingMetric
from valueflow.records import ValueId
from valueflow.report.model_card import METRICS, Corpus
from valueflow.report.training_page import training_page

HOSTILE = "<script>alert('x')</script>"
VALUES = list(map(ValueId, ["svt:power", "svt:benevolence", "mft:care-harm", "duty:fidelity", "right:economic-rights"]))


def page(encoders: dict, values: list[ValueId] = VALUES) -> str:
    vectors = np.random.default_rng(0).normal(size=(len(values), 8))
    losses = np.linspace(3, 1, 120).tolist()
    return training_page(
        HOSTILE, encoders, values, vectors, losses, [Corpus(HOSTILE, "CC-BY-4.0", 1234, 2)], {"steps": 120}, "5 texts"
    )


def metrics(value: float) -> dict[str, EmbeddingMetric]:
    names = [*METRICS, "pairwise/svt", "pairwise/mft"]
    return {name: EmbeddingMetric(value, value - 0.01, value + 0.01, 0.5, 77) for name in names}


def test_the_page_has_every_metric_of_every_encoder_with_its_interval():
    base = metrics(0.612)
    del base["pairwise/mft"]
    base["strict"] = EmbeddingMetric(0.612, float("nan"), float("nan"), 0.5, 77)
    text = re.sub(r"<[^>]*>", " ", page({HOSTILE: metrics(0.734), "base": base}))
    assert text.count("0.724 to 0.744") == 8
    assert text.count("0.602 to 0.622") == 6
    assert "–" in text
    for title in METRICS.values():
        assert title.capitalize() in text
    assert "1,234" in text


def test_the_page_is_self_contained_and_escapes_its_inputs():
    html = page({HOSTILE: metrics(0.7), "base": metrics(0.6)})
    outline = Outline(html)
    assert not outline.tags & {"script", "link", "iframe", "object", "embed", "form"}
    assert html.count("<figure>") == 4
    assert outline.headings == [1, 2, 2, 2]
    assert HOSTILE not in html


def test_the_page_omits_the_map_with_too_few_values():
    html = page({"one": metrics(0.7)}, VALUES[:2])
    assert html.count("<figure>") == 3


def test_more_encoders_than_a_figure_holds_are_in_the_table():
    html = page({f"encoder {i}": metrics(0.5 + i / 100) for i in range(7)})
    assert "encoder 6" in html
    assert "0.560" in html
