"""Pairs of texts out of ordered windows, the held-out split, and what a fit predicts for pairs.

In a partial order a pair counts if at least one of its texts is ordered: which of the two comes first is logistic under
Plackett-Luce at whichever stage that happens (Luce 1959), whereas pairs with both texts ordered are a biased selection.

Shapes: N texts, W windows, K texts in a window, J judges, P positions, E pairs.
"""

from typing import NamedTuple

import numpy as np

from valueflow.numerics.hashing import fold64
from valueflow.ranking.orders import Orders
from valueflow.ranking.plackett_luce import Fit

FOLDS = 5  # one of these is held out


class Pairs(NamedTuple):
    """Pairs of texts, the first ranked above the second; -1 for unknown positions, judge 0 if unknown."""

    first_E: np.ndarray
    second_E: np.ndarray
    weight_E: np.ndarray
    text_set_E: np.ndarray  # hash of the window's set of texts
    judge_E: np.ndarray
    first_position_E: np.ndarray
    second_position_E: np.ndarray


def split(orders: list[Orders], num_items: int) -> tuple[list[Orders], list[Orders]]:
    """Return held-out and training windows; windows of the same set of texts are on the same side."""
    held_out, training = [], []
    for o in orders:
        is_held_out_W = fold64(_text_sets(o.items_WK, num_items), FOLDS) == 0
        held_out.append(select(o, is_held_out_W))
        training.append(select(o, ~is_held_out_W))
    return held_out, training


def _text_sets(items_WK: np.ndarray, num_items: int) -> np.ndarray:
    """Return a hash of each window's set of texts: the sum, modulo 2^64, of a random number for each text."""
    return np.random.default_rng(0).integers(2**64, size=num_items, dtype=np.uint64)[items_WK].sum(1, dtype=np.uint64)


def select(o: Orders, mask_W: np.ndarray) -> Orders:
    """Return the windows of a mask."""
    return o._replace(**{name: x[mask_W] for name, x in o._asdict().items() if isinstance(x, np.ndarray)})


def pairs_of(orders: list[Orders], num_items: int) -> Pairs:
    """Return all pairs with a determined order, sorted by `orders`, then `ordered_ranks`, then window."""
    parts = [[np.empty(0, dtype) for dtype in (int, int, float, np.uint64, int, int, int)]]
    for o in orders:
        positions_WK = np.full(o.items_WK.shape, -1) if o.positions_WK is None else o.positions_WK
        judge_W = np.zeros(len(o.items_WK), int) if o.judge_W is None else o.judge_W
        text_set_W = _text_sets(o.items_WK, num_items)
        for a, b in ordered_ranks(o):
            first, second = o.items_WK[:, a], o.items_WK[:, b]
            parts.append([first, second, o.weight_W, text_set_W, judge_W, positions_WK[:, a], positions_WK[:, b]])
    return Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def ordered_ranks(o: Orders) -> list[tuple[int, int]]:
    """Return the ranks a < b, from 0, for which the order determines that a is above b."""
    return [(a, b) for a in range(o.stages) for b in range(a + 1, o.items_WK.shape[1])]


def differences(pairs: Pairs, theta_N: np.ndarray, fitted: Fit, unit: float = 1.0) -> np.ndarray:
    """Return log-worths of the first texts minus those of the second, in units of `theta_N`, each `unit` nats (E,)."""
    difference_E = theta_N[pairs.first_E] - theta_N[pairs.second_E]
    if not len(fitted.beta_J):
        return difference_E
    gamma_JP, j = fitted.gamma_JP / unit, pairs.judge_E
    return fitted.beta_J[j] * difference_E + gamma_JP[j, pairs.first_position_E] - gamma_JP[j, pairs.second_position_E]


def sharpness(pairs: Pairs, fitted: Fit) -> np.ndarray:
    """Return beta of each pair's judge (E,); 1 if judges are not modelled."""
    return fitted.beta_J[pairs.judge_E] if len(fitted.beta_J) else np.ones(len(pairs.first_E))
