"""How a worker scores texts: by an encoder's regressions, or by looking them up in an evaluation.

Shapes: T texts, V values.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from valueflow import store, vidb
from valueflow.distributed.embed import Embedder
from valueflow.distributed.profiles.config import ProfileConfig
from valueflow.errors import InputError
from valueflow.evaluation.regression import IntensityRegression, load_or_fit
from valueflow.hives.extract import Extractor, NodePrediction
from valueflow.judging.configs import EncoderJudge
from valueflow.judging.encoder import EncoderRanker
from valueflow.judging.value_head import unit
from valueflow.models import MINILM, encoder_settings, fetch
from valueflow.profiles.estimate import TextScores
from valueflow.records import ValueId, text_id
from valueflow.store import Build
from valueflow.theories import operational

ALL_NODES = 1000


class Scorer(Protocol):
    """Scores distinct texts on the values of a basis."""

    def __call__(self, texts: Sequence[str]) -> TextScores:
        """Return the judge's intensities and relevances."""
        ...


def regression(config: ProfileConfig, version: str, embed: Callable[[list[str]], np.ndarray]) -> IntensityRegression:
    """Return the regressions of a version on the encoder's vectors, fitted once and stored."""
    return load_or_fit(vidb.load(config.root, version), config.encoder.model, embed)


class FastScorer:
    """Mode fast: regressions on an encoder's vectors; relevance by the encoder judge's head or by labelled texts."""

    def __init__(
        self, config: ProfileConfig, version: str, values: Sequence[ValueId], extractor: "ray.ObjectRef | None"
    ) -> None:
        self.values, self.batch_size, self.kind = values, config.encoder.batch_size, config.relevance.by
        self.extractor: Extractor | None = ray.get(extractor) if extractor else None
        plain = config.encoder.model == MINILM and not encoder_settings(fetch(MINILM)) and self.kind == "head"
        settings = config.encoder
        # With the default encoder one pass gives both: the vector is the last layer of the head's features.
        self.one_pass = plain and not (settings.max_length or settings.prompt or settings.pooling or settings.num_gpus)
        self.embedder = None if self.one_pass else Embedder(settings.model_copy(update={"precision": "float32"}))
        self.ranker = EncoderRanker(EncoderJudge(name="head", model=settings.model)) if self.kind == "head" else None
        self.fast = regression(config, version, self.embed)  # in float32: the stored fit is the same whatever the precision
        for holder in (self.ranker, self.embedder):
            if holder:
                holder.encoder.in_bfloat16 = settings.precision == "bfloat16"

    def embed(self, texts: list[str]) -> np.ndarray:
        """Return unit vectors."""
        if self.embedder is None:
            assert self.ranker
            return self._vectors(self.ranker.encoder(texts))
        return self.embedder.encoder.embed(texts, self.batch_size)

    def _vectors(self, features_TD: np.ndarray) -> np.ndarray:
        assert self.ranker
        return unit(features_TD[:, -self.ranker.encoder.model.config.hidden_size :])

    def __call__(self, texts: Sequence[str]) -> TextScores:
        """Return the regressions' intensities and the relevances."""
        features_TD = self.ranker.encoder(list(texts)) if self.ranker else None
        z_TD = self._vectors(features_TD) if self.one_pass and features_TD is not None else self.embed(list(texts))
        judge_TV = np.stack([self.fast(z_TD, value)[0] for value in self.values], 1)
        relevance_TV = np.full(judge_TV.shape, np.nan)
        if self.ranker and features_TD is not None:
            relevance_HTV, _ = self.ranker.head(features_TD)
            columns = [operational().index(value) for value in self.values]
            relevance_TV = np.tensordot(self.ranker.share_H, relevance_HTV, 1)[:, columns]
        elif self.extractor:
            relevance_TV = node_relevance(self.extractor(z_TD, ALL_NODES), self.values)
        return TextScores(judge_TV, relevance_TV)


def node_relevance(predictions: list[dict[str, list[NodePrediction]]], values: Sequence[ValueId]) -> np.ndarray:
    """Return by text and value the highest confidence of a node at or below the value; 0 where there is none (T, V)."""
    column = {value: v for v, value in enumerate(values)}
    relevance_TV = np.zeros((len(predictions), len(values)))
    for of_text, by_theory in zip(relevance_TV, predictions, strict=True):
        for theory, nodes in by_theory.items():
            for node in nodes:
                for step in node.path:
                    v = column.get(ValueId.of(theory, step))
                    if v is not None:
                        of_text[v] = max(of_text[v], node.confidence)
    return relevance_TV


class EvaluationScorer:
    """Mode ranked: scores of `evaluations`, by text."""

    def __init__(self, table: dict[str, np.ndarray], values: Sequence[ValueId]) -> None:
        self.table, self.values = table, values

    def __call__(self, texts: Sequence[str]) -> TextScores:
        """Return the judge's intensities and relevances; nan for texts that were not evaluated."""
        ids = np.array([text_id(text) for text in texts], "S16")
        known = self.table["ids"]
        place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        found = (known[place] == ids)[:, None]
        return TextScores(*(np.where(found, self.table[name][place], np.nan) for name in ("judge", "relevance")))


def evaluated(evaluation: Build, values: Sequence[ValueId]) -> dict[str, np.ndarray]:
    """Return sorted text ids, intensities and relevances of an evaluation; equal responses have equal scores."""
    columns = ["response", "theory", "value", "judge_intensity", "intensity", "relevance"]
    column = {value: v for v, value in enumerate(values)}
    parts = []
    for file in store.require_manifest(evaluation).files:
        part = store.read_part(evaluation, file, columns)
        number = pc.coalesce(part["judge_intensity"], part["intensity"])
        of = [column.get(ValueId.of(*pair)) for pair in zip(part["theory"].to_pylist(), part["value"].to_pylist(), strict=True)]
        ids = [text_id(text) for text in part["response"].to_pylist()]
        parts.append((ids, of, _floats(number), _floats(part["relevance"])))
    known = np.unique(np.array([i for ids, *_ in parts for i in ids], "S16"))
    judge_TV, relevance_TV = (np.full((len(known), len(values)), np.nan) for _ in range(2))
    for ids, of, number, relevance in parts:
        place = np.searchsorted(known, np.array(ids, "S16"))
        wanted = np.array([v is not None for v in of])
        at = place[wanted], np.array([v for v in of if v is not None], int)
        judge_TV[at], relevance_TV[at] = number[wanted], relevance[wanted]
    if not len(known):
        raise InputError(f"{evaluation.url} has no scores")
    return {"ids": known, "judge": judge_TV, "relevance": relevance_TV}


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.float64()).to_numpy()
