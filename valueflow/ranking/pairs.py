"""Pairs of texts out of ordered windows: what they say one by one, and what a fit says of them.

In a partial order a pair counts where one of the two is in order: which of them comes first is logistic under Plackett-Luce at
whatever choice that happens (Luce 1959), while the pairs that are both in order are a biased selection.

Shapes: N texts, W windows, K texts in a window, J judges, P places, E pairs.
"""

from typing import NamedTuple

import numpy as np

from valueflow.ranking.likelihood import Orders
from valueflow.ranking.plackett_luce import Fit

FOLDS = 5  # one of these is held out


class Pairs(NamedTuple):
    """Pairs of texts, the first placed above the second; `texts_E` is the same for windows of the same texts."""

    first_E: np.ndarray
    second_E: np.ndarray
    weight_E: np.ndarray
    texts_E: np.ndarray
    judge_E: np.ndarray  # 0 where unknown
    first_place_E: np.ndarray  # -1 where unknown
    second_place_E: np.ndarray


def split(orders: list[Orders], num_items: int) -> tuple[list[Orders], list[Orders]]:
    """Windows held out and kept; windows of the same texts are on the same side."""
    held, kept = [], []
    for o in orders:
        texts_W = _texts(o.items_WK, num_items)
        out_W = ((texts_W ^ (texts_W >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(40)) % FOLDS == 0
        held.append(rows(o, out_W))
        kept.append(rows(o, ~out_W))
    return held, kept


def _texts(items_WK: np.ndarray, num_items: int) -> np.ndarray:
    """A hash of the set of texts in each window: the sum (modulo 2^64) of a random number for each."""
    return np.random.default_rng(0).integers(2**64, size=num_items, dtype=np.uint64)[items_WK].sum(1, dtype=np.uint64)


def rows(o: Orders, chosen_W: np.ndarray) -> Orders:
    """Return some of the windows."""
    return o._replace(**{name: x[chosen_W] for name, x in o._asdict().items() if isinstance(x, np.ndarray)})


def pairs_of(orders: list[Orders], num_items: int) -> Pairs:
    """All pairs of which the order is known, in the order of `orders`, of `known`, of windows."""
    parts = [[np.empty(0, dtype) for dtype in (int, int, float, np.uint64, int, int, int)]]
    for o in orders:
        places_WK = np.full(o.items_WK.shape, -1) if o.places_WK is None else o.places_WK
        judge_W = np.zeros(len(o.items_WK), int) if o.judge_W is None else o.judge_W
        texts_W = _texts(o.items_WK, num_items)
        for a, b in known(o):
            first, second = o.items_WK[:, a], o.items_WK[:, b]
            parts.append([first, second, o.weight_W, texts_W, judge_W, places_WK[:, a], places_WK[:, b]])
    return Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def known(o: Orders) -> list[tuple[int, int]]:
    """The places a < b in the order of which it is known that a comes first."""
    return [(a, b) for a in range(o.stages) for b in range(a + 1, o.items_WK.shape[1])]


def differences(pairs: Pairs, theta_N: np.ndarray, fitted: Fit, unit: float = 1.0) -> np.ndarray:
    """Log-worths of the first less those of the second, in units of `theta_N`, each `unit` nats."""
    difference_E = theta_N[pairs.first_E] - theta_N[pairs.second_E]
    if not len(fitted.beta_J):
        return difference_E
    gamma_JP, j = fitted.gamma_JP / unit, pairs.judge_E
    return fitted.beta_J[j] * difference_E + gamma_JP[j, pairs.first_place_E] - gamma_JP[j, pairs.second_place_E]


def sharpness(pairs: Pairs, fitted: Fit) -> np.ndarray:
    """Return beta of each pair's judge; 1 where judges are not modelled."""
    return fitted.beta_J[pairs.judge_E] if len(fitted.beta_J) else np.ones(len(pairs.first_E))
