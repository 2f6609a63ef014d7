"""What Plackett-Luce needs of the data: sums over windows, in this process or on a cluster.

Shapes: W windows, K texts in a window, N texts, J judges, P places. Items are integers 0..N-1; names are the caller's business.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components

from valueflow.ranking import kernels

DRAWS = 64  # the bits of a window's hash


class Orders(NamedTuple):
    """Windows of one length: item numbers best first, and the weight of each (1 for a plain answer).

    A preference with probability p is two rows, weights p and 1-p; a tie is two rows of weight 1/2. Of a partial order only the
    first `top` items are in order, the others follow in any. `key_W` tells windows apart for random draws, wherever they
    are kept.
    """

    items_WK: np.ndarray
    weight_W: np.ndarray
    places_WK: np.ndarray | None = None  # place at which each item was shown
    judge_W: np.ndarray | None = None
    top: int | None = None
    key_W: np.ndarray | None = None

    @property
    def stages(self) -> int:
        """Choices in a window."""
        k = self.items_WK.shape[1]
        return k - 1 if self.top is None else min(self.top, k - 1)


class Layout(NamedTuple):
    """What the parameters phi are: theta, then, with judges, beta and gamma."""

    num_items: int
    num_judges: int = 0
    num_places: int = 0

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.num_items + self.num_judges * (1 + self.num_places)


class Moments(NamedTuple):
    """Log-likelihood, its gradient and the diagonal of the information, by parameter."""

    log_likelihood: float
    gradient: np.ndarray
    diagonal: np.ndarray


class Counts(NamedTuple):
    """Per item: windows it was in, items it was placed above (weighted), its connected component; windows of each judge."""

    num_windows_N: np.ndarray
    wins_N: np.ndarray
    component_N: np.ndarray
    num_comparisons: float
    num_windows_J: np.ndarray


class Likelihood(Protocol):
    """Sums over all windows; the place where a cluster can enter."""

    layout: Layout

    def moments(self, phi: np.ndarray) -> Moments:
        """Log-likelihood, gradient, diagonal of the information."""

    def product(self, phi: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Information times a vector."""

    def information(self, phi: np.ndarray) -> np.ndarray:
        """Dense information matrix."""

    def draws(self, phi: np.ndarray) -> np.ndarray:
        """Random vectors (64, parameters) whose covariance is the information."""

    def skewness(self, phi: np.ndarray, root_NS: np.ndarray) -> np.ndarray:
        """Third derivatives of each item contracted with the covariance root root'."""

    def counts(self) -> Counts:
        """Windows, wins, components."""


class LikelihoodShard:
    """Sums over windows held in this process; beside the data, one float per item shown.

    Judges are modelled where `num_judges` is given; places shown are then 0..num_places-1.
    """

    def __init__(self, num_items: int, orders: list[Orders], num_judges: int = 0, num_places: int = 0) -> None:
        self.layout = Layout(num_items, num_judges, num_places)
        first = np.cumsum([0, *(len(o.items_WK) for o in orders)])
        self.orders = [_checked(o, self.layout, int(f)) for o, f in zip(orders, first, strict=False)]
        self._worths = [np.empty(o.items_WK.shape) for o in self.orders]
        self._phi = np.empty(0)

    def moments(self, phi: np.ndarray) -> Moments:
        """Log-likelihood, gradient and diagonal of the information in one pass."""
        self._update(phi)
        total, gradient, diagonal = 0.0, np.zeros(self.layout.size), np.zeros(self.layout.size)
        for o, e_WK in zip(self.orders, self._worths, strict=True):
            total += kernels.moments(phi, *self.layout, *_data(o), e_WK, gradient, diagonal)
        return Moments(total, gradient, diagonal)

    def product(self, phi: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Information matrix times a vector."""
        return self._add(kernels.product, phi, (v,), self.layout.size)

    def information(self, phi: np.ndarray) -> np.ndarray:
        """The information matrix, dense."""
        return self._add(kernels.information, phi, (), (self.layout.size, self.layout.size))

    def draws(self, phi: np.ndarray) -> np.ndarray:
        """See `Sums`."""
        self._update(phi)
        total = np.zeros((DRAWS, self.layout.size))
        for o, e_WK in zip(self.orders, self._worths, strict=True):
            kernels.draw(phi, *self.layout, *_data(o), e_WK, o.key_W, total)
        return total

    def skewness(self, phi: np.ndarray, root_NS: np.ndarray) -> np.ndarray:
        """See `Sums`."""
        self._update(phi)
        total = np.zeros(self.layout.num_items)
        for o, e_WK in zip(self.orders, self._worths, strict=True):
            kernels.skewness(phi, self.layout.num_items, o.items_WK, o.weight_W, o.judge_W, o.stages, e_WK, root_NS, total)
        return total

    def counts(self) -> Counts:
        """Windows, wins and connected components."""
        size, comparisons = self.layout.num_items, 0.0
        windows, wins, judged = np.zeros(size), np.zeros(size), np.zeros(self.layout.num_judges)
        graph = scipy.sparse.csr_matrix((size, size), dtype=bool)
        for o in self.orders:
            k = o.items_WK.shape[1]
            for a in range(k):
                above = k - 1 - a if a < o.stages else 0
                windows += np.bincount(o.items_WK[:, a], o.weight_W, size)
                wins += np.bincount(o.items_WK[:, a], o.weight_W * above, size)
                if a:
                    ones = np.ones(len(o.items_WK), bool)
                    graph += scipy.sparse.csr_matrix((ones, (o.items_WK[:, a - 1], o.items_WK[:, a])), (size, size))
            comparisons += float(o.weight_W.sum()) * o.stages
            if o.judge_W is not None:
                judged += np.bincount(o.judge_W, o.weight_W, self.layout.num_judges)
        return Counts(windows, wins, connected_components(graph, directed=False)[1], comparisons, judged)

    def _add(self, kernel: Callable[..., None], phi: np.ndarray, more: tuple, shape: int | tuple[int, int]) -> np.ndarray:
        self._update(phi)
        total = np.zeros(shape)
        for o, e_WK in zip(self.orders, self._worths, strict=True):
            kernel(phi, *self.layout, *_data(o), e_WK, *more, total)
        return total

    def _update(self, phi: np.ndarray) -> None:
        """Worths at phi, which the sums at one point share."""
        if not np.array_equal(phi, self._phi):
            for o, e_WK in zip(self.orders, self._worths, strict=True):
                kernels.worths(phi, *self.layout, o.items_WK, o.places_WK, o.judge_W, e_WK)
            self._phi = phi.copy()


def _data(o: Orders) -> tuple:
    return o.items_WK, o.weight_W, o.places_WK, o.judge_W, o.stages


def _checked(o: Orders, layout: Layout, first_key: int) -> Orders:
    items_WK = np.ascontiguousarray(o.items_WK, np.int32)
    if items_WK.ndim != 2 or items_WK.shape[1] < 2 or len(items_WK) != len(o.weight_W) or o.stages < 1:
        raise ValueError(
            f"orders need two or more items and one weight each, got {items_WK.shape}, {o.weight_W.shape}, {o.top}"
        )
    judges, places = (None, None) if not layout.num_judges else (o.judge_W, o.places_WK)
    if layout.num_judges and (judges is None or places is None):
        raise ValueError("judges are modelled, but these orders do not say who gave them and at which place items were shown")
    key_W = np.arange(first_key, first_key + len(items_WK)) if o.key_W is None else o.key_W
    return Orders(
        items_WK, np.ascontiguousarray(o.weight_W, float), None if places is None else np.ascontiguousarray(places, np.int8),
        None if judges is None else np.ascontiguousarray(judges, np.int32), o.top, np.ascontiguousarray(key_W, np.uint64),
    )  # fmt: skip
