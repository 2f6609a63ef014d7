"""The encoder judge: orders texts by relevance times direction, from hidden states of a sentence encoder (`value_head`)."""

import hashlib
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valueflow import store
from valueflow.hives.pieces import OVERLAP, mean_over_pieces, own_max_length
from valueflow.judging import value_head
from valueflow.judging.answers import answers, votes
from valueflow.judging.configs import EncoderJudge
from valueflow.judging.kind import PIECE_BYTES, JudgeKind
from valueflow.judging.value_head import ValueHead, support
from valueflow.models import MINILM, cache_folder, check_self_contained, encoder_settings, fetch, load_model, locate
from valueflow.records import LIMIT, ValueId, clean, digest, text_id
from valueflow.theories import operational, theories
from valueflow.voting.descend import NEUTRAL

CACHE = 200_000  # texts whose scores are kept in memory

# As a voter. Below this relevance, no value is concerned.
CONCERNED = 0.2
# Below this |direction|, a text takes no side.
SIDED = 0.1
# Support of this size is intensity 10.
FULL = 0.8
# Intensities that differ by more than this are implausible.
WEIRD = 10.0


class LayerEncoder:
    """Mean-pooled hidden states of every layer of a transformers encoder; a HiVES folder has a prompt and a maximum length.

    Attributes:
        in_bfloat16: whether matrices are multiplied in bfloat16: half the time on processors that have it, and on GPUs.
    """

    in_bfloat16 = False

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
                pooled, batch_texts, num_tokens, self.tokenizer, self.prompt, self.max_length, lambda p: self._features(p)[0],
                self.device,
            )  # fmt: skip
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
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=self.in_bfloat16):
            states = self.model(**batch, output_hidden_states=True).hidden_states
            mask = batch["attention_mask"][..., None].float()
            pooled = torch.cat([(h.float() * mask).sum(1) / mask.sum(1) for h in states], 1).cpu().numpy()
        return pooled, num_tokens


class EncoderRanker:
    """Orders the texts of windows; every text is embedded once per actor."""

    def __init__(self, config: EncoderJudge) -> None:
        self.config = config
        self.encoder = LayerEncoder(config.model)
        self.piece_bytes = PIECE_BYTES if self.encoder.device == "cpu" else 128 * PIECE_BYTES
        self.read_bytes = sys.maxsize  # long texts are read whole, in pieces
        self.head = _head(self.encoder)
        members = len(self.head.relevance.bias_HV)
        self.share_H = np.full(members, 1 / members)
        if config.bag is not None:
            self.share_H = np.random.default_rng(config.bag).dirichlet(np.ones(members))
        self.columns = {value: i for i, value in enumerate(operational())}
        self._judgements: dict[str, np.ndarray] = {}

    def judgements(self, texts: list[str]) -> np.ndarray:
        """Return relevance and direction of each text for each value by each member, shape (texts, 2, members, 32)."""
        keys = [text_id(text) for text in texts]
        known = self._judgements  # a call in another thread may replace them
        new = {key: clean(text) for key, text in zip(keys, texts, strict=True) if key not in known}
        if new:
            pairs = np.stack(self.head(self.encoder(list(new.values())))).transpose(2, 0, 1, 3).astype(np.float32)
            if len(known) + len(new) > CACHE:
                self._judgements = known = {key: known[key] for key in keys if key in known}
            known.update(zip(new, pairs, strict=True))
        return np.stack([known[key] for key in keys])

    def knows(self, windows: pa.Table) -> bool:
        """Return whether all texts of the windows were embedded before."""
        known = self._judgements
        return all(text in known for text in pc.list_flatten(windows["text_ids"]).to_pylist())

    def scores(self, texts: list[str]) -> np.ndarray:
        """Return the support of each text for each of the 32 values, from -1 to 1, 0 where it says nothing; (texts, 32)."""
        relevance, direction = self.judgements(texts).transpose(1, 0, 2, 3)
        return np.einsum("h,thv->tv", self.share_H, support(relevance, direction))

    def relevance(self, texts: list[str], value: str) -> np.ndarray:
        """Return how much each text concerns the value at all, from 0 to 1."""
        return self.judgements(texts)[:, 0, :, self.columns[ValueId(value)]] @ self.share_H

    def __call__(self, windows: pa.Table) -> pa.Table:
        """Return the `rankings` rows of windows: the texts by descending support; of a window of one text its relevance.

        Each window is ordered by one member of the ensemble and ties are broken at random, both a hash of the window's id: so
        windows disagree where the judge does not know, and texts that say nothing about the value are tied on average.
        """
        texts = windows["texts"].to_pylist()
        relevance, direction = self.judgements([text for window in texts for text in window]).transpose(1, 0, 2, 3)
        scores = support(relevance, direction)
        orders: list[list[int] | None] = []
        relevances: list[float | None] = []
        start = 0
        keys = zip(*(windows[c].to_pylist() for c in ("window_id", "theory", "value")), strict=True)
        for window, (window_id, theory, value) in zip(texts, keys, strict=True):
            rng = np.random.default_rng(int(digest(window_id), 16))
            member = rng.choice(len(self.share_H), p=self.share_H)
            column = self.columns[ValueId.of(theory, value)]
            of_window = scores[start : start + len(window), member, column]
            orders.append(np.lexsort((rng.random(len(window)), -of_window)).tolist())
            relevances.append(float(relevance[start, :, column] @ self.share_H) if len(window) == 1 else None)
            start += len(window)
        nulls: list[str | None] = [None] * len(texts)
        return answers(windows, self.config.name, orders, nulls, nulls, relevance=relevances)


def _head(encoder: LayerEncoder) -> ValueHead:
    """Return the head that ships if it was made for this encoder; else one fitted to the exemplars, cached by their content."""
    probe_D = encoder([value_head.PROBE])[0]
    if head := value_head.shipped(probe_D):
        return head
    url = str(cache_folder() / f"value-head-{digest(probe_D.round(3).tolist(), value_head.knowledge())}")
    if head := store.read_or_set_aside(url, _cached_head, (ValueError,), "weights of a head"):
        return head
    content = value_head.dump(value_head.fit_exemplars(encoder, encoder.model.config.hidden_size), probe_D)
    store.write_bytes(url, hashlib.sha256(content).digest() + content)
    return value_head.parse(content)[0]


def _cached_head(content: bytes) -> ValueHead:
    """The head in a file of the cache, which begins with the hash of the rest."""
    hashed, weights = content[: hashlib.sha256().digest_size], content[hashlib.sha256().digest_size :]
    if hashlib.sha256(weights).digest() != hashed:
        raise ValueError("its hash is another")
    return value_head.parse(weights)[0]


class EncoderVoter:
    """Votes by relevance and support; below the operational values, which have no head, by similarity to definitions."""

    def __init__(self, config: EncoderJudge) -> None:
        self.config = config
        self.ranker = EncoderRanker(config)
        self.definitions = {
            ValueId.of(t.id, n.id): f"{n.name}. {n.definition.strip()}" for t in theories().values() for n in t.nodes
        }  # fmt: skip
        self.definition_ND = self.ranker.head.unit(self.ranker.encoder(list(self.definitions.values())))
        self.row_of = {node: i for i, node in enumerate(self.definitions)}

    def __call__(self, ballots: pa.Table) -> pa.Table:
        """Return the `votes` rows of ballots with their texts."""
        texts = [clean(text) for text in ballots["text"].to_pylist()]
        distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        features_TD, share_H = self.ranker.encoder(list(distinct)), self.ranker.share_H
        relevance_HTV, direction_HTV = self.ranker.head(features_TD)
        relevance_TV = np.tensordot(share_H, relevance_HTV, 1)
        support_TV = np.tensordot(share_H, support(relevance_HTV, direction_HTV), 1)
        direction_TV = np.tensordot(share_H, direction_HTV, 1)
        similarity_TN = self.ranker.head.unit(features_TD) @ self.definition_ND.T
        choices: list[str | None] = []
        for row, text in zip(ballots.select(["kind", "theory", "node", "options", "detail"]).to_pylist(), texts, strict=True):
            i = distinct[text]
            choices.append(self._choose(row, relevance_TV[i], direction_TV[i], support_TV[i], similarity_TN[i]))
        return votes(ballots, self.config.name, choices, [None] * len(choices))

    def _choose(
        self, row: dict, relevance_V: np.ndarray, direction_V: np.ndarray, support_V: np.ndarray, similarity_N: np.ndarray
    ) -> str:
        if row["kind"] == "child":
            return self._child(row["theory"], row["options"], relevance_V, similarity_N)
        columns = _columns(row["theory"], row["node"])
        column = columns[np.argmax(relevance_V[columns])]
        if row["kind"] == "direction":  # asked about a value that the panel has chosen, so relevance is settled
            return "neither" if abs(direction_V[column]) < SIDED else "supports" if direction_V[column] > 0 else "opposes"
        intensity = float(np.clip(LIMIT * support_V[column] / FULL, -LIMIT, LIMIT))
        if row["kind"] == "rating":
            return str(round(intensity))
        return "weird" if abs(intensity - float(row["detail"])) > WEIRD else "plausible"

    def _child(self, theory: str, options: list[str], relevance_V: np.ndarray, similarity_N: np.ndarray) -> str:
        nodes = [option for option in options if option != NEUTRAL]
        # Scores are comparable among siblings: either all are at or above operational values, or all are below them.
        above = {node: _below(theory, node) for node in nodes}
        if all(above.values()):
            score = {node: float(relevance_V[columns].max()) for node, columns in above.items()}
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


def _ranking_knowledge(config: EncoderJudge) -> str:
    """Hash of the heads that ship, and of what a head for another encoder is fitted to."""
    other = [] if config.model == MINILM else [value_head.MPNET_SHA256]
    return digest(value_head.SHA256, value_head.knowledge(), OVERLAP, *other)


def _voting_knowledge(config: EncoderJudge) -> list[Any]:
    return [_ranking_knowledge(config), CONCERNED, SIDED, FULL, WEIRD]


ENCODER = JudgeKind(
    _ranking_knowledge,
    _voting_knowledge,
    EncoderRanker,
    EncoderVoter,
    check=lambda config: locate(config.model),
    relevance=lambda _: "in orders",
)
