"""Voters without an LLM: the encoder, which knows the project's exemplars, and a simulated one of known accuracy."""

import time

import numpy as np
import pyarrow as pa

from valueflow.judging.answers import votes
from valueflow.judging.encoder import RIDGE, EncoderRanker
from valueflow.judging.judges import EncoderJudge, SimulatedJudge
from valueflow.judging.simulated import true_theta
from valueflow.ranking.calibrate import LIMIT
from valueflow.records import clean, digest
from valueflow.theories import operational, theories
from valueflow.voting.descend import NEUTRAL

# Below this topic score (1 = like the exemplars of a value, 0 = unlike any) the encoder says that no value is concerned,
# below this |support| (1 = like the supporting exemplars) that a text takes no side.
CONCERNED, SIDED = 0.08, 0.05
# Support of this size is intensity 10: the 0.99 quantile of |support| over the exemplars is 0.62.
FULL = 0.62
# Intensities further apart than this are weird to the encoder.
WEIRD = 10.0


class EncoderVoter:
    """Vote by likeness to the exemplars; below the operational values, where there are none, by likeness to definitions."""

    def __init__(self, config: EncoderJudge) -> None:
        self.config = config
        self.ranker = EncoderRanker(config)
        known = self.ranker.knowledge
        values = {value: i for i, value in enumerate(operational())}
        rows = self.ranker.rows
        topic_EV = np.zeros((len(rows), len(values)))
        topic_EV[np.arange(len(rows)), [values[row["value"]] for row in rows]] = 1.0
        kernel_EE = np.exp(known.features_ED @ known.features_ED.T - 1)
        self.topic_EV = np.linalg.solve(kernel_EE + RIDGE * np.eye(len(rows)), topic_EV - topic_EV.mean(0))
        self.definitions = {
            f"{t.id}:{n.id}": f"{n.name}. {n.definition.strip()}" for t in theories().values() for n in t.nodes
        }  # fmt: skip
        self.definition_ND = self.features(list(self.definitions.values()))
        self.row_of = {node: i for i, node in enumerate(self.definitions)}

    def features(self, texts: list[str]) -> np.ndarray:
        """Return standardised unit features, shape (texts, D)."""
        known = self.ranker.knowledge
        z = (self.ranker.encoder(texts) - known.mean_D) / known.scale_D
        return z / np.linalg.norm(z, axis=-1, keepdims=True)

    def __call__(self, ballots: pa.Table) -> pa.Table:
        """Add the answer columns to ballots with their texts."""
        texts = [clean(text) for text in ballots["text"].to_pylist()]
        distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        z_TD = self.features(list(distinct))
        kernel_TE = np.exp(z_TD @ self.ranker.knowledge.features_ED.T - 1)
        topic_TV, support_TV = kernel_TE @ self.topic_EV, kernel_TE @ self.ranker.knowledge.dual_EV
        likeness_TN = z_TD @ self.definition_ND.T
        choices: list[str | None] = []
        for row, text in zip(ballots.select(["kind", "theory", "node", "options", "detail"]).to_pylist(), texts, strict=True):
            i = distinct[text]
            choices.append(self._choose(row, topic_TV[i], support_TV[i], likeness_TN[i]))
        return votes(ballots, self.config, choices, [None] * len(choices))

    def _choose(self, row: dict, topic_V: np.ndarray, support_V: np.ndarray, likeness_N: np.ndarray) -> str:
        if row["kind"] == "child":
            return self._child(row["theory"], row["options"], topic_V, likeness_N)
        columns = _columns(row["theory"], row["node"])
        support = float(support_V[columns[np.argmax(topic_V[columns])]])
        if row["kind"] == "direction":
            return "neither" if abs(support) < SIDED else "supports" if support > 0 else "opposes"
        intensity = float(np.clip(LIMIT * support / FULL, -LIMIT, LIMIT))
        if row["kind"] == "rating":
            return str(round(intensity))
        return "weird" if abs(intensity - float(row["detail"])) > WEIRD else "plausible"

    def _child(self, theory: str, options: list[str], topic_V: np.ndarray, likeness_N: np.ndarray) -> str:
        nodes = [option for option in options if option != NEUTRAL]
        # Scores are comparable among siblings: either all stand at or above operational values, or all below them.
        above = {node: _below(theory, node) for node in nodes}
        if all(above.values()):
            score = {node: float(topic_V[columns].max()) for node, columns in above.items()}
            if NEUTRAL in options and max(score.values()) < CONCERNED:
                return NEUTRAL
        else:
            score = {node: float(likeness_N[self.row_of[f"{theory}:{node}"]]) for node in nodes}
        return max(score, key=lambda node: score[node])


def _below(theory: str, node: str) -> list[int]:
    """Columns of the operational values at or below a node; none for a node below them."""
    columns = [operational().index(f"{theory}:{node}")] if theories()[theory].node(node).operational else []
    return columns or [i for child in theories()[theory].children(node) for i in _below(theory, child.id)]


def _columns(theory: str, node: str) -> list[int]:
    """Columns of the operational values at, below or else above a node."""
    return _below(theory, node) or [i for parent in theories()[theory].node(node).parents for i in _columns(theory, parent)]


class SimulatedVoter:
    """Vote for the truth, which is a hash of text and question, with a known accuracy; else for another option at random."""

    def __init__(self, config: SimulatedJudge) -> None:
        self.config = config

    def __call__(self, ballots: pa.Table) -> pa.Table:
        """Add the answer columns to ballots."""
        if self.config.seconds_per_batch:
            time.sleep(self.config.seconds_per_batch)
        answered = [self._answer(row) for row in ballots.to_pylist()]
        return votes(ballots, self.config, [choice for choice, _ in answered], [error for _, error in answered])

    def _answer(self, row: dict) -> tuple[str | None, str | None]:
        rng = np.random.default_rng(int(digest(self.config.name, self.config.seed, row["ballot_id"]), 16))
        if rng.random() < self.config.broken_share:
            return None, "not one of the options: 'Well, it depends.'"
        if row["kind"] == "rating":
            theta = true_theta(row["node"], row["text_id"], self.config.spread) + rng.normal() / max(
                self.config.sharpness, 1e-9
            )
            return str(round(float(np.clip(LIMIT * theta / (3 * self.config.spread), -LIMIT, LIMIT)))), None
        truth = true_choice(row["theory"], row["node"], row["text_id"], row["options"])
        others = sorted(set(row["options"]) - {truth})
        return (truth if rng.random() < self.config.accuracy or not others else str(rng.choice(others))), None


def true_choice(theory: str, node: str, text_id: str, options: list[str]) -> str:
    """Return the truth behind the simulated voter: one of the options other than Neutral, a hash of text and node."""
    real = sorted(set(options) - {NEUTRAL})
    return real[int(digest("truth", theory, node, text_id), 16) % len(real)]
