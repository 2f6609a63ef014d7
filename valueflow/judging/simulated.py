"""A judge whose truth is known: Plackett-Luce with a position effect and a share of broken replies."""

import time

import numpy as np
import pyarrow as pa

from valueflow.judging.answers import answers
from valueflow.judging.judges import SimulatedJudge
from valueflow.judging.parse import BrokenReply, parse_order
from valueflow.prompts.render import LABELS
from valueflow.records import digest


class Simulated:
    """Answer windows; the answer is a function of the window's id and the config."""

    def __init__(self, config: SimulatedJudge) -> None:
        self.config = config
        self._theta: dict[tuple[str, str], float] = {}

    def __call__(self, windows: pa.Table) -> pa.Table:
        """Add the answer columns to windows."""
        config = self.config
        if config.seconds_per_batch:
            time.sleep(config.seconds_per_batch)
        replies: list[str | None] = []
        orders: list[list[int] | None] = []
        errors: list[str | None] = []
        for window_id, value, ids in zip(*(windows[c].to_pylist() for c in ("window_id", "value", "text_ids")), strict=True):
            rng = np.random.default_rng(int(digest(config.seed, window_id), 16))
            gamma = (config.position_effect + [0.0] * len(ids))[: len(ids)]
            worth = config.sharpness * np.array([self.theta(value, i) for i in ids]) + np.array(gamma)
            order = np.argsort(-(worth + rng.gumbel(size=len(ids))))
            letters = [LABELS[i] for i in order]
            reply = letters[0] if len(ids) == 2 else " > ".join(letters)
            if rng.random() < config.broken_share:
                reply = f"I think that {letters[0]} is best."
            replies.append(reply)
            try:
                orders.append(parse_order(reply, len(ids)))
                errors.append(None)
            except BrokenReply as broken:
                orders.append(None)
                errors.append(str(broken))
        return answers(windows, config.name, orders, replies, errors)

    def theta(self, value: str, text_id: str) -> float:
        """Return the true log-worth of a text."""
        key = (value, text_id)
        if key not in self._theta:
            self._theta[key] = true_theta(value, text_id, self.config.spread)
        return self._theta[key]


def true_theta(value: str, text_id: str, spread: float) -> float:
    """Return the truth behind the simulated judge: N(0, spread²), a hash of value and text."""
    return float(np.random.default_rng(int(digest(value, text_id), 16)).normal(0.0, spread))
