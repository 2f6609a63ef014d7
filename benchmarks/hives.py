"""HiVES beside other encoders: metrics on ValueEval's validation arguments, the encoder judge on texts of published intensity.

python -m benchmarks.hives FOLDER MODEL [MODEL ...]    # FOLDER holds valueeval23/ and vidb_anchors/dev.jsonl

MODEL: a folder that jobs.train_hives saved, or any encoder by hub name or package://…; the raw MiniLM is always there. In
brackets 95 % intervals over groups of arguments (conclusions). AUC: supporting against opposing texts of a value; Spearman:
with the published intensity; both are means over values, for the judge of each model.
"""

import json
import logging
import sys
import tempfile

import numpy as np
import pyarrow as pa
import yaml
from scipy.stats import spearmanr

from jobs import ingest
from valueflow import store
from valueflow.config import load
from valueflow.distributed.embed import Embedder, EmbedderConfig, labelled, matrix
from valueflow.hives.encoder import METRICS
from valueflow.hives.examples import Examples
from valueflow.hives.metrics import evaluate
from valueflow.judging.encoder import EncoderRanker
from valueflow.judging.judges import MINILM, EncoderJudge
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
    return labelled(Build(root, "texts", build), Build(root, "source_labels", build))


def judged(ranker: EncoderRanker, folder: str) -> dict[str, tuple[float, float, int]]:
    """AUC, Spearman and number of values, for all and for each theory."""
    with open(f"{folder}/vidb_anchors/dev.jsonl") as file:
        rows = [json.loads(line) for line in file]
    values = np.array([resolve(row["value"], row["theory"]) for row in rows])
    scores = ranker.scores([row["text"] for row in rows])
    mine = np.array([scores[i, ranker.columns[value]] for i, value in enumerate(values)])
    truth = np.array([row["intensity"] for row in rows])
    found: dict[str, list[tuple[float, float]]] = {}
    for value in np.unique(values):
        of_value = values == value
        supporting, opposing = mine[of_value & (truth > 0)], mine[of_value & (truth < 0)]
        pair = (float((supporting[:, None] > opposing).mean()), float(spearmanr(mine[of_value], truth[of_value]).statistic))
        for name in ("all", value.split(":")[0]):
            found.setdefault(name, []).append(pair)
    return {name: (*np.mean(pairs, axis=0), len(pairs)) for name, pairs in found.items()}


def main() -> None:
    logging.disable(logging.INFO)
    folder, models = sys.argv[1], list(dict.fromkeys([MINILM, *sys.argv[2:]]))
    examples = arguments(folder)
    texts = pa.table({"text_id": examples.text_ids, "text": examples.texts})
    measured = {m: evaluate(matrix(Embedder(EmbedderConfig(model=m))(texts)), examples, leave="group") for m in models}
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
