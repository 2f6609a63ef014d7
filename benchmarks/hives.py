"""HiVES beside other encoders: metrics on ValueEval's validation arguments, the encoder judge on texts of published intensity.

python -m benchmarks.hives FOLDER MODEL [MODEL ...] [FIGURES/]    # FOLDER holds valueeval23/ and vidb_anchors/dev.jsonl

MODEL: a folder that jobs.train_hives saved, or any encoder by hub name or package://…; the raw MiniLM is always there. In
brackets 95 % intervals over groups of arguments (conclusions). AUC: supporting against opposing texts of a value; Spearman:
with the published intensity; both are means over values, for the judge of each model. With a folder that ends in a slash:
hives-metrics.svg, a bar a metric and model, and hives-map.svg, the values in the last model's space.
"""

import json
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from scipy.stats import spearmanr

from benchmarks.train_encoder_head import auc
from jobs import ingest
from valueflow import store
from valueflow.config import load
from valueflow.distributed.embed import Embedder, EmbedderConfig, part_vectors, read_examples
from valueflow.hives.examples import Examples
from valueflow.hives.metrics import embedding_metrics, value_vectors
from valueflow.judging.configs import EncoderJudge
from valueflow.judging.encoder import EncoderRanker
from valueflow.models import MINILM
from valueflow.report.embedding_figures import metric_bars, value_map
from valueflow.report.model_card import METRICS
from valueflow.report.plots import Plot
from valueflow.store import Build
from valueflow.theories import resolve


def arguments(folder: str) -> Examples:
    """ValueEval's validation split, labelled."""
    root = tempfile.mkdtemp()
    corpus = {"format": "valueeval", "path": f"{folder}/valueeval23/arguments-validation.tsv"}
    corpus["labels"] = f"{folder}/valueeval23/labels-validation.tsv"
    with open(f"{root}/ingest.yaml", "w") as file:
        yaml.safe_dump({"root": root, "corpora": [corpus], "cluster": {"num_cpus": 4}}, file)
    ingest.main(load(ingest.SCHEMA, f"{root}/ingest.yaml", []))
    build = store.finished(root, "texts")[-1]
    return read_examples(Build(root, "texts", build), Build(root, "source_labels", build))


def judged(ranker: EncoderRanker, folder: str) -> dict[str, tuple[float, float, int]]:
    """AUC, Spearman and number of values, for all and for each theory."""
    with open(f"{folder}/vidb_anchors/dev.jsonl") as file:
        rows = [json.loads(line) for line in file]
    values = np.array([resolve(row["value"], row["theory"]) for row in rows])
    scores = ranker.scores([row["text"] for row in rows])
    text_scores = np.array([scores[i, ranker.columns[value]] for i, value in enumerate(values)])
    truth = np.array([row["intensity"] for row in rows])
    by_theory: dict[str, list[tuple[float, float]]] = {}
    for value in np.unique(values):
        of_value = values == value
        supporting, opposing = text_scores[of_value & (truth > 0)], text_scores[of_value & (truth < 0)]
        pair = (
            auc(supporting, opposing),
            float(spearmanr(text_scores[of_value], truth[of_value]).statistic),
        )
        for name in ("all", value.split(":")[0]):
            by_theory.setdefault(name, []).append(pair)
    return {name: (*np.mean(pairs, axis=0), len(pairs)) for name, pairs in by_theory.items()}


def short_name(model: str) -> str:
    """The name on a trained encoder's card, MiniLM, or the end of another's."""
    if model == MINILM:
        return "MiniLM"
    card = Path(model) / "README.md"
    titles = [line[2:] for line in card.read_text("utf-8").splitlines() if line.startswith("# ")] if card.exists() else []
    return (titles or [model[-30:]])[0]


def write(path: str, plot: Plot) -> None:
    """Write a figure of a page as a separate file, in the colors of a light page."""
    svg = str(plot.svg)
    for variable, colour in {"muted": "#5c6570", "line": "#d9dde2", "first": "#2f6fab", "second": "#b65a12"}.items():
        svg = svg.replace(f"var(--{variable})", colour)
    Path(path).write_text(
        svg if "xmlns=" in svg else svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1), "utf-8"
    )


def main() -> None:
    logging.disable(logging.INFO)
    folder, models = sys.argv[1], list(dict.fromkeys([MINILM, *(word for word in sys.argv[2:] if not word.endswith("/"))]))
    examples = arguments(folder)
    texts = pa.table({"text_id": examples.text_ids, "text": examples.texts})
    vectors = {model: part_vectors(Embedder(EmbedderConfig(model=model))(texts)) for model in models}
    measured = {model: embedding_metrics(z_TD, examples, leave="group") for model, z_TD in vectors.items()}
    if sys.argv[-1].endswith("/"):
        by_name = {short_name(model): metrics for model, metrics in measured.items()}
        write(f"{sys.argv[-1]}hives-metrics.svg", metric_bars(by_name, [m for m in METRICS if m in measured[models[0]]]))
        write(f"{sys.argv[-1]}hives-map.svg", value_map(*value_vectors(vectors[models[-1]], examples)))
    print(f"{len(examples.texts):,} arguments")
    for model, metrics in measured.items():
        print(f"\n{model}")
        for metric, title in METRICS.items():
            if metric in metrics:
                m, raw = metrics[metric], measured[MINILM][metric].value
                print(f"  {title:56}{m.value:7.3f} [{m.low:.3f}, {m.high:.3f}]  random {m.floor:.3f}  {m.value / raw - 1:+.0%}")
    print("\nencoder judge on published intensities")
    for model in models:
        parts = [
            f"{name} {auc:.3f}/{rho:.3f} ({n})"
            for name, (auc, rho, n) in judged(EncoderRanker(EncoderJudge(model=model)), folder).items()
        ]
        print(f"  {model[-50:]:52}AUC/Spearman (values): {', '.join(parts)}")


if __name__ == "__main__":
    main()
