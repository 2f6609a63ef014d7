"""Macro-F1 of a panel's labels against human ones: ValueEval's validation arguments, Schwartz's values, by taxonomy level.

python -m benchmarks.panel FOLDER [voters]    # with arguments-validation.tsv and labels-validation.tsv of Touché23-ValueEval

A text has one predicted node a level and any number of human ones. Macro-F1 is the mean over the
level's nodes that people used.
`majority` always predicts the node that people used most; `zero-shot` the node whose name and definition is nearest to the text
in the same encoder; the encoder voter, and a panel of several (resamples of the exemplars), descend it with `jobs.categorize`.
"""

import logging
import sys
import tempfile

import numpy as np
import yaml

from jobs import categorize, ingest
from valueflow import store
from valueflow.config import load
from valueflow.judging.encoder import LayerEncoder
from valueflow.models import MINILM
from valueflow.store import Build
from valueflow.theories import theories

SVT = theories()["svt"]


def panel_paths(root: str, voters: int) -> dict[str, tuple[str, ...]]:
    """Return the panel's path of each text; texts in the human queue have none."""
    panel = [{"kind": "encoder", "name": f"encoder-{i}"} | ({"bag": i} if voters > 1 else {}) for i in range(1, voters + 1)]
    config = {"root": root, "theories": ["svt"], "panel": {"voters": panel}, "cluster": {"num_cpus": 8}}
    path = f"{root}/categorize-{voters}.yaml"
    with open(path, "w") as file:
        yaml.safe_dump(config, file)
    builds = categorize.main(load(categorize.SCHEMA, path, []))
    return {row["text_id"]: tuple(row["path"]) for row in store.read_table(builds.labels, ["text_id", "path"]).to_pylist()}


def level_of(node: str) -> int:
    """Return the level of a node; 1 is the top of the taxonomy."""
    return len(SVT.paths(node)[0])


def macro_f1(truth: list[set[str]], predicted: list[str | None], nodes: list[str]) -> float:
    """Return the mean F1 over nodes, with one prediction and a set of labels for each text."""
    scores = []
    for node in nodes:
        hits = sum(s == node and node in t for t, s in zip(truth, predicted, strict=True))
        positives, predictions = sum(node in t for t in truth), sum(s == node for s in predicted)
        scores.append(2 * hits / (positives + predictions))
    return float(np.mean(scores))


def main() -> None:
    folder, root = sys.argv[1], tempfile.mkdtemp()
    logging.disable(logging.INFO)
    corpus = {"format": "valueeval", "path": f"{folder}/arguments-validation.tsv", "labels": f"{folder}/labels-validation.tsv"}
    config = f"{root}/ingest.yaml"
    with open(config, "w") as file:
        yaml.safe_dump({"root": root, "corpora": [corpus], "cluster": {"num_cpus": 8}}, file)
    ingest.main(load(ingest.SCHEMA, config, []))
    build = store.finished(root, "texts")[-1]
    texts = store.read_table(Build(root, "texts", build), ["text_id", "text"])
    text_of = dict(zip(texts["text_id"].to_pylist(), texts["text"].to_pylist(), strict=True))
    people: dict[str, set[str]] = {}
    for row in store.read_table(Build(root, "source_labels", store.finished(root, "source_labels")[-1])).to_pylist():
        people.setdefault(row["text_id"], set()).update(n for path in SVT.paths(row["node"]) for n in path)
    ids = sorted(people)
    encoder = LayerEncoder(MINILM)
    embedded = encoder([text_of[i] for i in ids])
    methods = {f"{n} encoder voter(s)": panel_paths(root, n) for n in dict.fromkeys([1, *map(int, sys.argv[2:])])}
    levels = sorted({level_of(n.id) for n in SVT.nodes})
    print(f"{len(ids)} arguments; macro-F1 by level of the taxonomy")
    print(f"{'':22}" + "".join(f"{f'level {level}':>10}" for level in levels))
    rows: dict[str, list[float]] = {name: [] for name in ("majority", "zero-shot", *methods)}
    for level in levels:
        nodes = [n.id for n in SVT.nodes if level_of(n.id) == level and any(n.id in people[i] for i in ids)]
        truth = [people[i] & set(nodes) for i in ids]
        counts = [sum(n in t for t in truth) for n in nodes]
        rows["majority"].append(macro_f1(truth, [nodes[int(np.argmax(counts))]] * len(ids), nodes))
        definitions = encoder([f"{SVT.node(n).name}. {SVT.node(n).definition.strip()}" for n in nodes])
        centre = embedded.mean(0)
        unit = [(x - centre) / np.linalg.norm(x - centre, axis=1, keepdims=True) for x in (embedded, definitions)]
        nearest = np.argmax(unit[0] @ unit[1].T, axis=1)
        rows["zero-shot"].append(macro_f1(truth, [nodes[j] for j in nearest], nodes))
        for name, paths in methods.items():
            predicted = [next((n for n in paths.get(i, ()) if n in nodes), None) for i in ids]
            rows[name].append(macro_f1(truth, predicted, nodes))
    for name, scores in rows.items():
        print(f"{name:22}" + "".join(f"{score:10.3f}" for score in scores))
    print(f"in the human queue: {', '.join(f'{name} {len(ids) - len(paths)}' for name, paths in methods.items())}")


if __name__ == "__main__":
    main()
