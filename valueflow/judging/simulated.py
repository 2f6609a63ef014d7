"""The simulated judge, whose truth is known: Plackett-Luce with a position effect and a share of invalid replies."""

import os
import time

import numpy as np
import pyarrow as pa

from valueflow.judging.answers import answers, votes
from valueflow.judging.configs import SimulatedJudge
from valueflow.judging.kind import PIECE_BYTES, JudgeKind
from valueflow.judging.parse import parse_order
from valueflow.llm.answer_text import InvalidReply
from valueflow.prompts.render import LETTERS
from valueflow.records import LIMIT, digest
from valueflow.voting.descend import NEUTRAL


class SimulatedRanker:
    """Orders the texts of windows; an order is a function of the window's id and the settings."""

    piece_bytes, read_bytes = 32 * PIECE_BYTES, 1024

    def __init__(self, config: SimulatedJudge) -> None:
        self.config = config
        self._theta: dict[tuple[str, str], float] = {}

    def __call__(self, windows: pa.Table) -> pa.Table:
        """Return the `rankings` rows of windows."""
        config = self.config
        if config.seconds_per_batch:
            time.sleep(config.seconds_per_batch)
        replies: list[str | None] = []
        orders: list[list[int] | None] = []
        errors: list[str | None] = []
        relevances: list[float | None] = []
        for window_id, value, ids in zip(*(windows[c].to_pylist() for c in ("window_id", "value", "text_ids")), strict=True):
            if config.deadly_share and int(digest("deadly", window_id), 16) < config.deadly_share * 16**16:
                os._exit(1)
            rng = np.random.default_rng(int(digest(config.seed, window_id), 16))
            gamma = (config.position_effect + [0.0] * len(ids))[: len(ids)]
            worth = config.sharpness * np.array([self.theta(value, i) for i in ids]) + np.array(gamma)
            order = np.argsort(-(worth + rng.gumbel(size=len(ids))))
            letters = [LETTERS[i] for i in order]
            relevances.append(self.relevance(value, ids[0]) if len(ids) == 1 else None)
            reply = letters[0] if len(ids) == 2 else " > ".join(letters)
            if rng.random() < config.broken_share:
                reply = f"I think that {letters[0]} is best."
            replies.append(reply)
            try:
                orders.append(parse_order(reply, len(ids)))
                errors.append(None)
            except InvalidReply as invalid:
                orders.append(None)
                errors.append(str(invalid))
                relevances[-1] = None
        return answers(windows, config.name, orders, replies, errors, relevance=relevances)

    def knows(self, _: pa.Table) -> bool:
        """Return False: its answers take as long each time."""
        return False

    def theta(self, value: str, text_id: str) -> float:
        """Return the log-worth of a text for this judge: the truth and the judge's content error."""
        key, config = (value, text_id), self.config
        if key not in self._theta:
            error = 0.0
            if config.content_error:
                rng = np.random.default_rng(int(digest("content", config.name, config.seed, value, text_id), 16))
                error = float(rng.normal(0.0, config.content_error))
            self._theta[key] = true_theta(value, text_id, config.spread, config.concern_share) + error
        return self._theta[key]

    def relevance(self, value: str, text_id: str) -> float | None:
        """Return the probability that the text concerns the value, given what the judge believes; None if it does not say."""
        config, accuracy = self.config, self.config.relevance_accuracy
        if accuracy is None:
            return None
        rng = np.random.default_rng(int(digest("relevance", config.name, config.seed, value, text_id), 16))
        believes = concerns(value, text_id, config.concern_share) == (rng.random() < accuracy)
        right, share = accuracy if believes else 1 - accuracy, config.concern_share
        said = share * right + (1 - share) * (1 - right)
        return share * right / said if said else float(believes)


def concerns(value: str, text_id: str, share: float) -> bool:
    """Return whether a text concerns a value, with probability `share`: a hash of node and text."""
    return share == 1 or float(np.random.default_rng(int(digest("concerns", value, text_id), 16)).random()) < share


def true_theta(value: str, text_id: str, spread: float, concern_share: float = 1.0) -> float:
    """Return the truth of the simulated judge: a draw from N(0, spread²) that is a hash of node and text; 0 for a text that
    does not concern the value.
    """
    if not concerns(value, text_id, concern_share):
        return 0.0
    return float(np.random.default_rng(int(digest(value, text_id), 16)).normal(0.0, spread))


class SimulatedVoter:
    """Votes for the truth, a hash of text and question, with a known accuracy; else for another option at random."""

    def __init__(self, config: SimulatedJudge) -> None:
        self.config = config

    def __call__(self, ballots: pa.Table) -> pa.Table:
        """Return the `votes` rows of ballots."""
        if self.config.seconds_per_batch:
            time.sleep(self.config.seconds_per_batch)
        pairs = [self._vote(row) for row in ballots.to_pylist()]
        return votes(ballots, self.config.name, [choice for choice, _ in pairs], [error for _, error in pairs])

    def _vote(self, row: dict) -> tuple[str | None, str | None]:
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
    """Return the truth of the simulated voter: one of the options other than Neutral, a hash of text and node."""
    real = sorted(set(options) - {NEUTRAL})
    return real[int(digest("truth", theory, node, text_id), 16) % len(real)]


def correlation(judges: list[SimulatedJudge]) -> float:
    """Return the correlation of the truth with the mean theta of judges whose content errors are independent."""
    shares = [(judge.content_error / judge.spread) ** 2 for judge in judges]
    return float((1 + np.mean(shares) / len(shares)) ** -0.5)


SIMULATED = JudgeKind(
    ranking_knowledge=lambda _: "",
    voting_knowledge=lambda config: config.name,  # voters of one panel err independently
    ranker=SimulatedRanker,
    voter=SimulatedVoter,
    correlation=correlation,
    true_rating=lambda config, node, text_id: true_theta(node, text_id, config.spread, config.concern_share),
    relevance=lambda config: "none" if config.relevance_accuracy is None else "apart",
)
