"""What the head of the encoder judge learns from, with the features of an encoder: labelled corpora and the exemplars.

The project's exemplars, ValueEval and MFRC (CC BY 4.0), ETHICS and FULCRA (MIT); nothing else. Texts of
`vidb_anchors/dev.jsonl` and of the sample corpus are removed from all of them. Features are cached by model and texts.
"""

import csv
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from valueflow.corpora.reader import CorpusConfig, read
from valueflow.judging import value_head
from valueflow.judging.encoder import LayerEncoder
from valueflow.judging.value_head import Examples, Labels, exemplars
from valueflow.models import cache_folder
from valueflow.numerics.hashing import fold64
from valueflow.records import ValueId, digest
from valueflow.theories import operational, theories

VALUES = {value: i for i, value in enumerate(operational())}
COLUMNS = {t: [i for v, i in VALUES.items() if v.theory == t] for t in theories()}
LABELLED_FOUNDATIONS = [i for v, i in VALUES.items() if v.theory == "mft" and v.node != "liberty-oppression"]
FOLDS, INNER_FOLDS = 3, 2


class Corpus(NamedTuple):
    """Texts with their groups; direction_NV: nan where a value is not mentioned, 2 where it is without a direction."""

    texts: list[str]
    groups: list[str]
    direction_NV: np.ndarray


class Weights(NamedTuple):
    """How much an example of a corpus counts for relevance and for direction."""

    relevance: float
    direction: float


# Columns that a corpus labels, most texts of it that are used, weights.
PLAN: dict[str, tuple[list[int], int, Weights]] = {
    "valueeval": (COLUMNS["svt"], 4000, Weights(0.3, 0.02)),
    "mfrc": (LABELLED_FOUNDATIONS, 2000, Weights(0.5, 0.0)),
    "fulcra": (COLUMNS["svt"], 300, Weights(0.3, 0.0)),
    "virtue": ([], 2500, Weights(1.0, 0.3)),
    "justice": ([], 600, Weights(0.06, 0.0)),
}
CONDUCT = 2000  # most texts of ETHICS' commonsense that are used
CONDUCT_WEIGHT = 0.15
OTHERS, UNLABELLED = 3.0, 0.3


def normal(text: str) -> str:
    """Return what equal texts share."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def corpora(folder: str) -> dict[str, Corpus]:
    """Return the corpora of PLAN without the texts that figures are reported on."""
    reserved = {normal(text) for text in [*dev(folder)[0], *sample("corpus.csv")["text"]]}
    arguments = f"{folder}/valueeval23/arguments-*.tsv"
    configs: dict[str, list[dict[str, Any]]] = {
        "valueeval": [{"format": "valueeval", "path": arguments, "labels": f"{folder}/valueeval23/labels-*.tsv"}],
        "mfrc": [{"format": "mfrc", "path": f"{folder}/mfrc/mfrc.tsv"}],
        "fulcra": [{"format": "fulcra", "path": f"{folder}/fulcra/dev.jsonl"}],
        "virtue": [{"format": "ethics", "path": f"{folder}/ethics/virtue_train.csv"}],
        "justice": [{"format": "ethics", "path": f"{folder}/ethics/justice_train.csv"}],
    }  # fmt: skip
    return {name: _corpus(configs[name], reserved, limit) for name, (_, limit, _) in PLAN.items()}


def _corpus(configs: list[dict[str, Any]], reserved: set[str], limit: int) -> Corpus:
    texts: dict[str, tuple[str, str]] = {}
    labels: dict[str, list[dict]] = {}
    for config in configs:
        for text_table, label_table, _ in read(CorpusConfig.model_validate(config)):
            for row in text_table.to_pylist():
                if normal(row["text"]) not in reserved:
                    texts[row["text_id"]] = (row["group_id"], row["text"])
            for row in label_table.to_pylist():
                labels.setdefault(row["text_id"], []).append(row)
    chosen = sorted(texts, key=lambda i: (digest(texts[i][0]), i))[:limit]  # groups in random order, as a whole
    direction_NV = np.full((len(chosen), len(VALUES)), np.nan)
    for row, identifier in enumerate(chosen):
        for label in labels.get(identifier, []):
            for column in operational_columns(label["theory"], label["node"]):
                direction_NV[row, column] = 2 if label["direction"] is None else label["direction"]
    return Corpus([texts[i][1] for i in chosen], [texts[i][0] for i in chosen], direction_NV)


def operational_columns(theory: str, node: str) -> list[int]:
    """Return the columns of the operational values at or above a node."""
    value = ValueId.of(theory, node)
    if value in VALUES:
        return [VALUES[value]]
    return sorted(
        {column for parent in theories()[theory].node(node).parents for column in operational_columns(theory, parent)}
    )


def conduct(folder: str, reserved: set[str]) -> tuple[list[str], list[str], np.ndarray]:
    """Return texts, groups and 1 (right) or 0 (wrong) of ETHICS' commonsense, which names no value."""
    with open(f"{folder}/ethics/commonsense.csv", newline="") as file:
        rows = [
            (row["input"], f"pair {number // 2}", 1.0 - float(row["label"]))
            for number, row in enumerate(csv.DictReader(file))
            if row["is_short"] == "True" and normal(row["input"]) not in reserved
        ]
    texts, groups, right = zip(*sorted(rows, key=lambda r: digest(r[1]))[:CONDUCT], strict=True)
    return list(texts), list(groups), np.array(right)


def dev(folder: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return texts, columns of their values and intensities of the published anchors."""
    rows = [json.loads(line) for line in Path(folder, "vidb_anchors/dev.jsonl").read_text("utf-8").splitlines()]
    columns = [VALUES[ValueId.of(row["theory"], row["value"].replace("_", "-"))] for row in rows]
    return [row["text"] for row in rows], np.array(columns), np.array([row["intensity"] for row in rows])


def sample(name: str) -> dict[str, list[str]]:
    """Return the columns of a file of the demo."""
    rows = list(csv.DictReader(resources.files("valueflow.samples").joinpath(name).read_text("utf-8").splitlines()))
    return {column: [row[column] for row in rows] for column in rows[0]}


class Material(NamedTuple):
    """All examples with the name of their source and their group, and the features that every head needs.

    `fold_N` is the fold of the outer loop, `inner_N` that of the inner one: a group is whole in either.
    """

    examples: Examples
    source_N: np.ndarray
    fold_N: np.ndarray
    inner_N: np.ndarray
    group_N: np.ndarray
    exemplar_features_ED: np.ndarray
    phrase_features_PVD: np.ndarray
    width: int


class CachedFeatures:
    """Features of texts by an encoder, stored by content."""

    def __init__(self, model: str) -> None:
        self.model, self.encoder = model, LayerEncoder(model)

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Return float32 features, shape (texts, layers * width), rounded to 16 bits."""
        path = cache_folder() / f"training-{digest(self.model, texts)}.npy"
        if not path.exists():
            np.save(path, self.encoder(texts).astype(np.float16))
        return np.load(path).astype(np.float32)


def material(folder: str, features: CachedFeatures) -> Material:
    """Return everything to learn from."""
    exemplar_features_ED, phrase_features_PVD = value_head.exemplar_features(features)
    concern, side = value_head.exemplar_labels(phrase_features_PVD, exemplars())
    blocks = [Examples(exemplar_features_ED, concern, side)]
    sources, groups = ["exemplars"] * len(exemplars()), [normal(row["text"]) for row in exemplars()]
    for name, corpus in corpora(folder).items():
        concern, side = corpus_labels(corpus.direction_NV, PLAN[name][0], PLAN[name][2])
        blocks.append(Examples(features(corpus.texts), concern, side))
        sources += [name] * len(corpus.texts)
        groups += corpus.groups
    reserved = {normal(text) for text in [*dev(folder)[0], *sample("corpus.csv")["text"]]}
    texts, of_texts, right_N = conduct(folder, reserved)
    side_NK, weight_NK = (np.zeros((len(texts), len(VALUES) + 1)) for _ in range(2))
    side_NK[:, -1], weight_NK[:, -1] = right_N, CONDUCT_WEIGHT
    nothing = Labels(side_NK[:, :-1] * 0, weight_NK[:, :-1] * 0)
    blocks.append(Examples(features(texts), nothing, Labels(side_NK, weight_NK)))
    sources += ["commonsense"] * len(texts)
    groups += of_texts
    group_N = np.unique(groups, return_inverse=True)[1]
    hashes = np.array([int(digest(group), 16) for group in groups], np.uint64)
    inner_N = np.random.default_rng(0).permutation(group_N.max() + 1)[group_N] % INNER_FOLDS
    return Material(
        joined(blocks), np.array(sources), fold64(hashes, FOLDS), inner_N, group_N, exemplar_features_ED, phrase_features_PVD,
        features.encoder.model.config.hidden_size,
    )  # fmt: skip


def corpus_labels(direction_NV: np.ndarray, columns: list[int], weights: Weights) -> tuple[Labels, Labels]:
    """Return what a corpus says: a value that it labels (`columns`) and that a text does not have is not concerned.

    Rare and frequent values weigh the same, and so do texts that concern a value against OTHERS times those that do not: how
    often a corpus speaks of a value says nothing about other texts.
    """
    concerns_NV, count_V = ~np.isnan(direction_NV), (~np.isnan(direction_NV)).sum(0)
    weight_NV = np.where(concerns_NV, weights.relevance, 0.0)
    labelled = [column for column in columns if count_V[column]]
    typical = np.exp(np.log(count_V[labelled]).mean()) if labelled else 1.0
    for column in labelled:
        weight = weights.relevance * np.clip(typical / count_V[column], 0.2, 4)
        others = weight * OTHERS * count_V[column] / max((~concerns_NV[:, column]).sum(), 1)
        weight_NV[:, column] = np.where(concerns_NV[:, column], weight, others)
    if columns:  # texts in which people saw none of its values concern, most likely, no other value either
        weight_NV[~concerns_NV.any(1)] = np.maximum(weight_NV[~concerns_NV.any(1)], UNLABELLED * weights.relevance)
    directed_NV = np.isin(direction_NV, (-1, 1))
    side_NK, weight_NK = (np.zeros((len(direction_NV), len(VALUES) + 1)) for _ in range(2))
    side_NK[:, :-1] = np.where(directed_NV, (1 + direction_NV) / 2, 0.5)
    weight_NK[:, :-1] = weights.direction * directed_NV
    return Labels(concerns_NV.astype(float), weight_NV), Labels(side_NK, weight_NK)


def joined(blocks: list[Examples]) -> Examples:
    """Return the rows of all blocks."""
    labels = [
        Labels(*(np.concatenate([getattr(getattr(b, part), field) for b in blocks]) for field in Labels._fields))
        for part in ("concern", "side")
    ]
    return Examples(np.concatenate([b.features_ND for b in blocks]), *labels)
