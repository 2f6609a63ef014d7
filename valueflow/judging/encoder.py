"""The encoder judge: support of a text for each value, regressed on hidden states of a sentence encoder.

Kernel ridge regression on the project's exemplars, over all values at once: the kernel of two statements is
exp(cosine of their mean-pooled states - 1) times (a part shared by all values + a part for values of similar definition + a
part for the same value). The shared part is the general direction from wrong to right; without it, small encoders separate
topics, but not support from opposition.
"""

import functools
import hashlib
import json
import sys
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from valueflow import store
from valueflow.hives.pieces import OVERLAP, mean_over_pieces, own_max_length
from valueflow.judging.answers import answers, votes
from valueflow.judging.configs import EncoderJudge
from valueflow.judging.kind import PIECE_BYTES, JudgeKind
from valueflow.models import cache_folder, check_self_contained, encoder_settings, fetch, load_model, locate
from valueflow.records import LIMIT, ValueId, clean, digest, text_id
from valueflow.theories import operational, theories
from valueflow.voting.descend import NEUTRAL

RIDGE = 3.0
SHARED, ALIKE, SAME = 0.5, 1.0, 1.0
# Trust in an exemplar by kind: plain statements and the poles of definitions are less ambiguous than scenes.
TRUST = {"scene": 1.0, "plain": 2.0, "pole": 5.0}
CACHE = 200_000  # texts whose scores are kept in memory

# As a voter. Below this topic score (1: like the exemplars of a value, 0: unlike any), no value is concerned; below this
# |support| (1: like the supporting exemplars), a text takes no side.
CONCERNED, SIDED = 0.08, 0.05
# Support of this size is intensity 10: the 0.99 quantile of |support| over the exemplars is 0.62.
FULL = 0.62
# Intensities that differ by more than this are implausible.
WEIRD = 10.0


@functools.cache
def exemplars() -> list[dict]:
    """Return the labelled statements that the judge learns from: value, direction, strength, kind, text."""
    lines = resources.files("valueflow.theories").joinpath("exemplars.jsonl").read_text("utf-8").splitlines()
    poles = []
    for value in operational():
        node = theories()[value.theory].node(value.node)
        poles += [
            {"value": value, "direction": d, "strength": 2, "kind": "pole", "text": clean(text)}
            for d, text in ((1, node.supports), (-1, node.opposes))
        ]
    return [json.loads(line) for line in lines] + poles


class LayerEncoder:
    """Mean-pooled hidden states of every layer of a transformers encoder; a HiVES folder has a prompt and a maximum length."""

    def __init__(self, model: str) -> None:
        import torch

        path = fetch(model)
        settings = encoder_settings(path)
        check_self_contained(path)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer, loaded = load_model(f"judge.model {model!r}", {"pretrained_model_name_or_path": path})
        self.model = loaded.eval().to(self.device)
        self.prompt = settings.prompt if settings else ""
        self.max_length = settings.max_length if settings else own_max_length(self.model, self.tokenizer, path)

    def __call__(self, texts: list[str], batch_size: int = 64) -> np.ndarray:
        """Return float32 features, shape (texts, layers * width); texts of similar length share a batch.

        Those of a text that is longer than the model reads are the mean over its pieces.
        """
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        rows = [np.empty(0, np.float32)] * len(texts)
        for start in range(0, len(texts), batch_size):
            indices = by_length[start : start + batch_size]
            batch_texts = [texts[i] for i in indices]
            pooled, num_tokens = self._features(batch_texts)
            pooled = mean_over_pieces(
                pooled, batch_texts, num_tokens, self.tokenizer, self.prompt, self.max_length, lambda p: self._features(p)[0]
            )
            for i, row in zip(indices, pooled, strict=True):
                rows[i] = row
        return np.stack(rows) if rows else np.empty((0, 0), np.float32)

    def _features(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """The features of the beginnings of texts, and the number of tokens of each."""
        import torch

        prompted = [self.prompt + text for text in texts]
        batch = self.tokenizer(prompted, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt")
        num_tokens = batch["attention_mask"].sum(1).numpy()
        batch = batch.to(self.device)
        with torch.inference_mode():
            states = self.model(**batch, output_hidden_states=True).hidden_states
            mask = batch["attention_mask"][..., None].to(states[0].dtype)
            pooled = torch.cat([(h * mask).sum(1) / mask.sum(1) for h in states], 1).float().cpu().numpy()
        return pooled, num_tokens


class Knowledge(NamedTuple):
    """The fitted regression: mean and scale of features, standardized features of the exemplars, dual weights per value."""

    mean_D: np.ndarray
    scale_D: np.ndarray
    features_ED: np.ndarray
    dual_EV: np.ndarray


def learn(features_ED: np.ndarray, rows: list[dict]) -> Knowledge:
    """Return the regression of direction on the features (E, D) of the exemplars in `rows`."""
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
    """Indices of the exemplars to learn from: all, or a bootstrap resample with every pole."""
    rows = exemplars()
    if seed is None:
        return np.arange(len(rows))
    poles = np.flatnonzero([row["kind"] == "pole" for row in rows])
    others = np.setdiff1d(np.arange(len(rows)), poles)
    return np.sort(np.concatenate([np.random.default_rng(seed).choice(others, len(others)), poles]))


def _features_in(content: bytes, num_texts: int) -> np.ndarray:
    """The features (texts, D) in a file of the cache, which begins with the hash of the rest."""
    hashed, values = content[: hashlib.sha256().digest_size], content[hashlib.sha256().digest_size :]
    if hashlib.sha256(values).digest() != hashed:
        raise ValueError("its hash is another")
    return np.frombuffer(values, np.float32).reshape(num_texts, -1)


class EncoderRanker:
    """Orders the texts of windows; every text is embedded once per actor."""

    def __init__(self, config: EncoderJudge) -> None:
        self.config = config
        self.encoder = LayerEncoder(config.model)
        self.piece_bytes = PIECE_BYTES if self.encoder.device == "cpu" else 128 * PIECE_BYTES
        self.read_bytes = sys.maxsize  # long texts are read whole, in pieces
        bag = _bag(config.bag)
        self.rows = [exemplars()[i] for i in bag]
        self.knowledge = learn(self._exemplar_features()[bag], self.rows)
        self.columns = {value: i for i, value in enumerate(operational())}
        self._scores: dict[str, np.ndarray] = {}

    def _exemplar_features(self) -> np.ndarray:
        """Features of the exemplars, cached by model and content, since embedding them is the slowest step."""
        texts = [row["text"] for row in exemplars()]
        probe = self.encoder(texts[:1])
        url = str(cache_folder() / f"exemplars-{digest(self.config.model, probe.round(3).tolist(), texts)}.f32")
        features = store.read_or_set_aside(
            url, functools.partial(_features_in, num_texts=len(texts)), (ValueError,), "features of the exemplars"
        )
        if features is None:
            features = self.encoder(texts)
            store.write_bytes(url, hashlib.sha256(features.tobytes()).digest() + features.tobytes())
        return features

    def scores(self, texts: list[str]) -> np.ndarray:
        """Return the support of each text for each of the 32 values (roughly -1 to 1), shape (texts, 32)."""
        keys = [text_id(text) for text in texts]
        new = {key: clean(text) for key, text in zip(keys, texts, strict=True) if key not in self._scores}
        if new:
            k = self.knowledge
            z = _unit((self.encoder(list(new.values())) - k.mean_D) / k.scale_D)
            values = np.exp(z @ k.features_ED.T - 1) @ k.dual_EV
            if len(self._scores) + len(new) > CACHE:
                self._scores = {key: self._scores[key] for key in keys if key in self._scores}
            self._scores.update(zip(new, values, strict=True))
        return np.stack([self._scores[key] for key in keys])

    def __call__(self, windows: pa.Table) -> pa.Table:
        """Return the `rankings` rows of windows: the texts by descending score."""
        texts = windows["texts"].to_pylist()
        scores = self.scores([text for window in texts for text in window])
        columns = [
            self.columns[ValueId.of(t, v)] for t, v in zip(*(windows[c].to_pylist() for c in ("theory", "value")), strict=True)
        ]
        orders: list[list[int] | None] = []
        start = 0
        for window, column in zip(texts, columns, strict=True):
            orders.append(np.argsort(-scores[start : start + len(window), column], kind="stable").tolist())
            start += len(window)
        nulls: list[str | None] = [None] * len(texts)
        return answers(windows, self.config.name, orders, nulls, nulls)


class EncoderVoter:
    """Votes by similarity to the exemplars; below the operational values, which have none, by similarity to definitions."""

    def __init__(self, config: EncoderJudge) -> None:
        self.config = config
        self.ranker = EncoderRanker(config)
        knowledge = self.ranker.knowledge
        values = {value: i for i, value in enumerate(operational())}
        rows = self.ranker.rows
        topic_EV = np.zeros((len(rows), len(values)))
        topic_EV[np.arange(len(rows)), [values[row["value"]] for row in rows]] = 1.0
        kernel_EE = np.exp(knowledge.features_ED @ knowledge.features_ED.T - 1)
        self.topic_EV = np.linalg.solve(kernel_EE + RIDGE * np.eye(len(rows)), topic_EV - topic_EV.mean(0))
        self.definitions = {
            ValueId.of(t.id, n.id): f"{n.name}. {n.definition.strip()}" for t in theories().values() for n in t.nodes
        }  # fmt: skip
        self.definition_ND = self.features(list(self.definitions.values()))
        self.row_of = {node: i for i, node in enumerate(self.definitions)}

    def features(self, texts: list[str]) -> np.ndarray:
        """Return standardized features of length 1, shape (texts, D)."""
        knowledge = self.ranker.knowledge
        z = (self.ranker.encoder(texts) - knowledge.mean_D) / knowledge.scale_D
        return z / np.linalg.norm(z, axis=-1, keepdims=True)

    def __call__(self, ballots: pa.Table) -> pa.Table:
        """Return the `votes` rows of ballots with their texts."""
        texts = [clean(text) for text in ballots["text"].to_pylist()]
        distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        z_TD = self.features(list(distinct))
        kernel_TE = np.exp(z_TD @ self.ranker.knowledge.features_ED.T - 1)
        topic_TV, support_TV = kernel_TE @ self.topic_EV, kernel_TE @ self.ranker.knowledge.dual_EV
        similarity_TN = z_TD @ self.definition_ND.T
        choices: list[str | None] = []
        for row, text in zip(ballots.select(["kind", "theory", "node", "options", "detail"]).to_pylist(), texts, strict=True):
            i = distinct[text]
            choices.append(self._choose(row, topic_TV[i], support_TV[i], similarity_TN[i]))
        return votes(ballots, self.config.name, choices, [None] * len(choices))

    def _choose(self, row: dict, topic_V: np.ndarray, support_V: np.ndarray, similarity_N: np.ndarray) -> str:
        if row["kind"] == "child":
            return self._child(row["theory"], row["options"], topic_V, similarity_N)
        columns = _columns(row["theory"], row["node"])
        support = float(support_V[columns[np.argmax(topic_V[columns])]])
        if row["kind"] == "direction":
            return "neither" if abs(support) < SIDED else "supports" if support > 0 else "opposes"
        intensity = float(np.clip(LIMIT * support / FULL, -LIMIT, LIMIT))
        if row["kind"] == "rating":
            return str(round(intensity))
        return "weird" if abs(intensity - float(row["detail"])) > WEIRD else "plausible"

    def _child(self, theory: str, options: list[str], topic_V: np.ndarray, similarity_N: np.ndarray) -> str:
        nodes = [option for option in options if option != NEUTRAL]
        # Scores are comparable among siblings: either all are at or above operational values, or all are below them.
        above = {node: _below(theory, node) for node in nodes}
        if all(above.values()):
            score = {node: float(topic_V[columns].max()) for node, columns in above.items()}
            if NEUTRAL in options and max(score.values()) < CONCERNED:
                return NEUTRAL
        else:
            score = {node: float(similarity_N[self.row_of[ValueId.of(theory, node)]]) for node in nodes}
        return max(score, key=lambda node: score[node])


def _below(theory: str, node: str) -> list[int]:
    """Columns of the operational values at or below a node; none for a node below them."""
    columns = [operational().index(ValueId.of(theory, node))] if theories()[theory].node(node).operational else []
    return columns or [i for child in theories()[theory].children(node) for i in _below(theory, child.id)]


def _columns(theory: str, node: str) -> list[int]:
    """Columns of the operational values at, below or else above a node."""
    return _below(theory, node) or [i for parent in theories()[theory].node(node).parents for i in _columns(theory, parent)]


def _ranking_knowledge(_: object) -> str:
    """Hash of the exemplars and of the constants of the regression."""
    return digest([RIDGE, SHARED, ALIKE, SAME, TRUST, OVERLAP], [list(row.values()) for row in exemplars()])


def _voting_knowledge(config: object) -> list[Any]:
    return [_ranking_knowledge(config), CONCERNED, SIDED, FULL, WEIRD]


ENCODER = JudgeKind(
    _ranking_knowledge, _voting_knowledge, EncoderRanker, EncoderVoter, check=lambda config: locate(config.model)
)
