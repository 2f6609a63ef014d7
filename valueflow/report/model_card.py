"""The model card of a trained encoder."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import yaml

from valueflow.hives.metrics import EmbeddingMetric
from valueflow.report.dataset_card import license_field, markdown_table

METRICS = {
    "pairwise": "hierarchical ranking accuracy, pairs",
    "strict": "hierarchical ranking accuracy, full order",
    "correlation": "correlation of cosine with shared levels and direction",
    "orthogonality": "orthogonality of value vectors",
    "label_accuracy": "value from the nearest texts",
    "direction_accuracy": "direction from the nearest texts",
}


class Corpus(NamedTuple):
    """One source of an encoder's training data."""

    name: str
    license: str
    num_texts: int
    num_labels: int


def model_card(
    name: str,
    base: str,
    license_: str,
    corpora: Sequence[Corpus],
    settings: Mapping[str, object],
    encoders: Mapping[str, Mapping[str, EmbeddingMetric]],
    measured_on: str,
) -> str:
    """Return the README of a trained encoder: Markdown with YAML front matter.

    Args:
        name: name of the encoder.
        base: name of the model that it was trained from.
        license_: license of the weights.
        corpora: training data.
        settings: training settings, among them max_length, pooling and prompt.
        encoders: metrics by name, of this encoder and of those it is compared with.
        measured_on: description of the evaluation texts.
    """
    front = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "feature-extraction",
        "base_model": base,
        **license_field([license_]),
        "tags": ["sentence-transformers", "sentence-similarity", "human-values", "hives", "valueflow"],
    }
    sources = [[c.name, c.license, f"{c.num_texts:,}", f"{c.num_labels:,}"] for c in corpora]
    sections = [
        f"# {name}",
        f"A sentence encoder, trained from `{base}`, that places texts by the human values they express: texts are close if "
        "they have the same direction (supporting or opposing) on the same node of a value theory, or on a nearby node.",
        "## Training data\n\nThe licenses are those of the sources; check what they mean for your use of the weights.\n\n"
        + markdown_table(["source", "license", "texts", "labels"], sources),
        "## Training\n\n" + markdown_table(["setting", "value"], [[key, str(value)] for key, value in settings.items()]),
        f"## Metrics\n\nEvaluated on {measured_on}. In brackets: 95 % intervals from a bootstrap over groups of texts. Random: "
        "the metric of random vectors on the same texts. It is high for orthogonality, which is not meaningful alone.\n\n"
        + metrics_table(encoders),
        CARD_LIMITS,
        f"""## How to load

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}")
vectors = model.encode(["She gave her seat to an old man."])
```

The folder includes the pooling, the normalization and the prompt (if any): `encode` needs no arguments. With ValueFlow:
`valueflow.hives.encoder.Encoder.from_folder("FOLDER").embed(texts)`.""",
    ]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n" + "\n\n".join(sections) + "\n"


def metrics_table(encoders: Mapping[str, Mapping[str, EmbeddingMetric]]) -> str:
    """Return the metrics of encoders as a Markdown table, with 95 % intervals, random vectors and counts."""
    names = list(dict.fromkeys(name for metrics in encoders.values() for name in metrics))
    rows = []
    for name in names:
        kind, _, theory = name.partition("/")
        first = next(metrics[name] for metrics in encoders.values() if name in metrics)
        numbers = [
            f"{m.value:.3f} [{m.low:.3f}, {m.high:.3f}]" if (m := metrics.get(name)) else "" for metrics in encoders.values()
        ]
        rows.append([METRICS.get(kind, kind), theory or "mean", *numbers, f"{first.floor:.3f}", f"{first.count:,}"])
    return markdown_table(["metric", "theory", *encoders, "random", "count"], rows)


CARD_LIMITS = """## Intended use and limits

Intended for finding texts that express similar values, for locating texts in a value theory by their labeled neighbors, and for
research on values in language models. Not intended for judging people or for making decisions about them.

- A position in this space is an estimate that depends on the training labels: their cultures, languages, periods and errors.
- The direction of a text is harder to predict than its value: check the accuracy of direction above before relying on it.
- Similarities are comparable within one theory; across theories they show what texts share, not that values are equal.
- sentence-transformers cuts texts longer than max_length tokens, as training did; ValueFlow reads them in overlapping pieces.
- A text with several values still gets a single vector."""
