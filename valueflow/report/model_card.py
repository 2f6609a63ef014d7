"""The model card of a trained encoder."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import yaml

from valueflow.hives.metrics import EmbeddingMetric
from valueflow.report.dataset_card import license_field, markdown_table

METRICS = {
    "pairwise": "hierarchical ranking accuracy, pairs",
    "strict": "hierarchical ranking accuracy, whole order",
    "correlation": "correlation of cosine with shared levels and direction",
    "orthogonality": "orthogonality of value vectors",
    "label_accuracy": "value from the nearest texts",
    "direction_accuracy": "direction from the nearest texts",
}


class Corpus(NamedTuple):
    """What an encoder was trained on, one source."""

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
    """Return the README of a trained encoder.

    `settings` says how it was trained (steps, rates, seeds; max_length, pooling and prompt among them), `encoders` holds the
    metrics of this encoder and of those it is compared with, by name, and `measured_on` names their texts.
    """
    front = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "feature-extraction",
        "base_model": base,
        **license_field([license_]),
        "tags": ["sentence-transformers", "sentence-similarity", "human-values", "hives", "valueflow"],
    }
    trained = [[c.name, c.license, f"{c.num_texts:,}", f"{c.num_labels:,}"] for c in corpora]
    sections = [
        f"# {name}",
        f"A sentence encoder, trained from `{base}`, in whose space texts lie by the human values they express: texts of one "
        "node of a value theory, or of nodes near it, and of one direction (supporting, opposing) are near one another.",
        "## Training data\n\nLicences are those of the sources; check what they mean for your use of the weights.\n\n"
        + markdown_table(["source", "licence", "texts", "labels"], trained),
        "## Training\n\n" + markdown_table(["setting", "value"], [[key, str(value)] for key, value in settings.items()]),
        f"## Metrics\n\nMeasured on {measured_on}. In brackets: 95 % intervals of a bootstrap over groups of texts. Random: "
        "what random vectors reach on the same texts; it is high for orthogonality, which alone says nothing.\n\n"
        + metrics_table(encoders),
        CARD_LIMITS,
        f"""## How to load

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}")
vectors = model.encode(["She gave her seat to an old man."])
```

The prompt, if there is one, the pooling and the normalisation are part of the folder: `encode` needs no arguments. With
ValueFlow: `valueflow.hives.encoder.Encoder.from_folder("FOLDER").embed(texts)`.""",
    ]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n" + "\n\n".join(sections) + "\n"


def metrics_table(encoders: Mapping[str, Mapping[str, EmbeddingMetric]]) -> str:
    """Return the metrics of encoders by name as a Markdown table, with intervals, what random vectors reach, and counts."""
    names = list(dict.fromkeys(name for metrics in encoders.values() for name in metrics))
    rows = []
    for name in names:
        kind, _, theory = name.partition("/")
        found = [metrics[name] for metrics in encoders.values() if name in metrics]
        numbers = [
            f"{m.value:.3f} [{m.low:.3f}, {m.high:.3f}]" if (m := metrics.get(name)) else "" for metrics in encoders.values()
        ]
        rows.append([METRICS.get(kind, kind), theory or "mean", *numbers, f"{found[0].floor:.3f}", f"{found[0].count:,}"])
    return markdown_table(["metric", "theory", *encoders, "random", "count"], rows)


CARD_LIMITS = """## Intended use and limits

Meant for finding texts that express like values, for placing texts in a value theory by their labelled neighbours, and for
research on values in language models. Not meant for judging people, or for deciding anything about them.

- A place in this space is a guess from the training labels, with their cultures, languages, periods and errors.
- The direction of a text is harder to tell than its value: check the accuracy of direction above before relying on it.
- Similarities are comparable within one theory; across theories they say what texts have in common, not that values are equal.
- Texts longer than the limit above are cut; several values in one text blur into one vector."""
