"""The encoder judge: hidden states of a sentence encoder and the project's exemplars say how strongly a text supports a value.

Kernel ridge regression over all values at once: similarity of two statements is exp(cosine of their mean-pooled states - 1)
times (a part shared by all values + a part for values of like definition + a part for the same value). The shared part is the
general direction from wrong to right, without which small encoders tell topics apart but not for from against.
"""

import functools
import json
import os
import uuid
from importlib import resources
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from valueflow.judging.answers import answers
from valueflow.judging.judges import EncoderJudge
from valueflow.judging.weights import cache_folder, fetch, trained
from valueflow.records import clean, digest, text_id
from valueflow.theories import operational, theories

RIDGE = 3.0
SHARED, ALIKE, SAME = 0.5, 1.0, 1.0
# Trust in an exemplar by kind: plain statements and the definitions' poles say what they mean more plainly than scenes do.
TRUST = {"scene": 1.0, "plain": 2.0, "pole": 5.0}
CACHE = 200_000
MAX_LENGTH = 256  # tokens, for models that do not say how they were trained


@functools.cache
def exemplars() -> list[dict]:
    """Return the statements the judge knows: value, direction, strength, kind, text."""
    lines = resources.files("valueflow.theories").joinpath("exemplars.jsonl").read_text("utf-8").splitlines()
    poles = []
    for value in operational():
        theory, _, node_id = value.partition(":")
        node = theories()[theory].node(node_id)
        poles += [
            {"value": value, "direction": d, "strength": 2, "kind": "pole", "text": clean(text)}
            for d, text in ((1, node.supports), (-1, node.opposes))
        ]
    return [json.loads(line) for line in lines] + poles


class Encoder:
    """Mean-pooled hidden states of every layer of a transformers encoder; a HiVES folder brings its prompt and length."""

    def __init__(self, model: str) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        path = fetch(model)
        own = trained(path)
        self.prompt, self.max_length = (own.prompt, own.max_length) if own else ("", MAX_LENGTH)
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = AutoModel.from_pretrained(path).eval().to(self.device)

    def __call__(self, texts: list[str], batch_size: int = 64) -> np.ndarray:
        """Return float32 features, shape (texts, layers * width); similar lengths are batched together."""
        import torch

        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        rows = [np.empty(0, np.float32)] * len(texts)
        for start in range(0, len(texts), batch_size):
            chosen = by_length[start : start + batch_size]
            prompted = [self.prompt + texts[i] for i in chosen]
            batch = self.tokenizer(prompted, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt")
            batch = batch.to(self.device)
            with torch.inference_mode():
                states = self.model(**batch, output_hidden_states=True).hidden_states
                mask = batch["attention_mask"][..., None].to(states[0].dtype)
                pooled = torch.cat([(h * mask).sum(1) / mask.sum(1) for h in states], 1).float().cpu().numpy()
            for i, row in zip(chosen, pooled, strict=True):
                rows[i] = row
        return np.stack(rows) if rows else np.empty((0, 0), np.float32)


class Knowledge(NamedTuple):
    """The fitted regression: standardisation, exemplar features, dual weights per value."""

    mean_D: np.ndarray
    scale_D: np.ndarray
    features_ED: np.ndarray
    dual_EV: np.ndarray


def learn(features_ED: np.ndarray, rows: list[dict]) -> Knowledge:
    """Fit the regression of direction on exemplar features."""
    values = {value: i for i, value in enumerate(operational())}
    value_E = np.array([values[row["value"]] for row in rows])
    y_E = np.array([row["direction"] for row in rows], float)
    trust_E = np.array([TRUST[row["kind"]] for row in rows])
    mean_D, scale_D = features_ED.mean(0), features_ED.std(0) + 1e-6
    z_ED = _unit((features_ED - mean_D) / scale_D)
    pole_VD = np.stack(
        [
            z_ED[(value_E == v) & (trust_E == TRUST["pole"]) & (y_E > 0)].mean(0)
            for v in range(len(values))
        ]
    )  # fmt: skip
    between_VV = SHARED + ALIKE * (_unit(pole_VD) @ _unit(pole_VD).T) + SAME * np.eye(len(values))
    kernel_EE = np.exp(z_ED @ z_ED.T - 1) * between_VV[np.ix_(value_E, value_E)]
    alpha_E = np.linalg.solve(kernel_EE + RIDGE * np.diag(1.0 / trust_E), y_E)
    return Knowledge(mean_D, scale_D, z_ED.astype(np.float32), alpha_E[:, None] * between_VV[value_E])


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _bag(seed: int | None) -> np.ndarray:
    """Positions of the exemplars to learn from: all, or a resample that keeps every pole."""
    known = exemplars()
    if seed is None:
        return np.arange(len(known))
    poles = np.flatnonzero([row["kind"] == "pole" for row in known])
    others = np.setdiff1d(np.arange(len(known)), poles)
    return np.sort(np.concatenate([np.random.default_rng(seed).choice(others, len(others)), poles]))


class EncoderRanker:
    """Answer windows with the encoder; every text is embedded once per actor."""

    def __init__(self, config: EncoderJudge) -> None:
        self.config = config
        self.encoder = Encoder(config.model)
        chosen = _bag(config.bag)
        self.rows = [exemplars()[i] for i in chosen]
        self.knowledge = learn(self._exemplar_features()[chosen], self.rows)
        self.columns = {value: i for i, value in enumerate(operational())}
        self._scores: dict[str, np.ndarray] = {}

    def _exemplar_features(self) -> np.ndarray:
        """Features of the exemplars; embedding them takes longer than all else, so they are cached by model and content."""
        texts = [row["text"] for row in exemplars()]
        probe = self.encoder(texts[:1])
        path = cache_folder() / f"exemplars-{digest(self.config.model, probe.round(3).tolist(), texts)}.npy"
        if not path.exists():
            temporary = path.with_suffix(f".{uuid.uuid4().hex}.npy")
            np.save(temporary, self.encoder(texts))
            os.replace(temporary, path)
        return np.load(path)

    def scores(self, texts: list[str]) -> np.ndarray:
        """Return how strongly each text supports each of the 32 values (-1 to 1, roughly), shape (texts, 32)."""
        keys = [text_id(text) for text in texts]
        fresh = {key: clean(text) for key, text in zip(keys, texts, strict=True) if key not in self._scores}
        if fresh:
            k = self.knowledge
            z = _unit((self.encoder(list(fresh.values())) - k.mean_D) / k.scale_D)
            values = np.exp(z @ k.features_ED.T - 1) @ k.dual_EV
            if len(self._scores) + len(fresh) > CACHE:
                self._scores = {key: self._scores[key] for key in keys if key in self._scores}
            self._scores.update(zip(fresh, values, strict=True))
        return np.stack([self._scores[key] for key in keys])

    def __call__(self, windows: pa.Table) -> pa.Table:
        """Add the answer columns: the texts by descending score."""
        shown = windows["texts"].to_pylist()
        scores = self.scores([text for window in shown for text in window])
        columns = [
            self.columns[f"{t}:{v}"] for t, v in zip(*(windows[c].to_pylist() for c in ("theory", "value")), strict=True)
        ]
        orders: list[list[int] | None] = []
        at = 0
        for window, column in zip(shown, columns, strict=True):
            orders.append(np.argsort(-scores[at : at + len(window), column], kind="stable").tolist())
            at += len(window)
        nothing: list[str | None] = [None] * len(shown)
        return answers(windows, self.config.name, orders, nothing, nothing)
