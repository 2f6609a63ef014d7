"""The Plackett-Luce likelihood as sums over windows, computed in this process or on a cluster.

Shapes: W windows, K texts in a window, N texts (items 0..N-1), J judges, P positions, S columns of a covariance factor.
`phi` is the vector of all parameters: theta (N), then, with judges, beta (J) and gamma (J x P).
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components

from valueflow.ranking import kernels
from valueflow.ranking.orders import Orders

DRAWS = 64  # one random vector for each bit of a window's hash


class Layout(NamedTuple):
    """Sizes of the parameter vector phi: theta, then, with judges, beta and gamma."""

    num_items: int
    num_judges: int = 0
    num_positions: int = 0

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.num_items + self.num_judges * (1 + self.num_positions)


class Moments(NamedTuple):
    """Log-likelihood (nats), its gradient and the diagonal of the information matrix, both of shape (parameters,)."""

    log_likelihood: float
    gradient: np.ndarray
    diagonal: np.ndarray


class Counts(NamedTuple):
    """Weighted counts of the data.

    For each item: windows with it, items ranked below it, and its connected component in the comparison graph.
    `num_comparisons` counts choices; `num_windows_J` the windows of each judge.
    """

    num_windows_N: np.ndarray
    wins_N: np.ndarray
    component_N: np.ndarray
    num_comparisons: float
    num_windows_J: np.ndarray


class Likelihood(Protocol):
    """Sums over all windows. The solver depends on this interface only, so that a cluster can compute them."""

    layout: Layout

    def moments(self, phi: np.ndarray) -> Moments:
        """Return the log-likelihood, its gradient and the diagonal of the information."""

    def product(self, phi: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return the information matrix times a vector."""

    def information(self, phi: np.ndarray) -> np.ndarray:
        """Return the dense information matrix."""

    def draws(self, phi: np.ndarray) -> np.ndarray:
        """Return random vectors (64, parameters) whose covariance is the information."""

    def skewness(self, phi: np.ndarray, root_NS: np.ndarray) -> np.ndarray:
        """Return the third derivatives for each item, contracted with the covariance root root' (N,)."""

    def counts(self) -> Counts:
        """Return the counts of windows, wins and components."""


class LikelihoodShard:
    """The sums over windows in this process; memory beyond the data is one float for each item of a window.

    Judges are modelled if `num_judges` is above 0; positions are then 0..num_positions-1.
    """

    def __init__(self, num_items: int, orders: list[Orders], num_judges: int = 0, num_positions: int = 0) -> None:
        self.layout = Layout(num_items, num_judges, num_positions)
        first = np.cumsum([0, *(len(o.items_WK) for o in orders)])
        self.orders = [_validated(o, self.layout, int(f)) for o, f in zip(orders, first, strict=False)]
        self._worths = [np.empty(o.items_WK.shape) for o in self.orders]
        self._phi = np.empty(0)

    def moments(self, phi: np.ndarray) -> Moments:
        """See `Likelihood`; one pass over the data."""
        self._update(phi)
        total, gradient, diagonal = 0.0, np.zeros(self.layout.size), np.zeros(self.layout.size)
        for o, e_WK in zip(self.orders, self._worths, strict=True):
            total += kernels.moments(phi, *self.layout, *_arrays(o), e_WK, gradient, diagonal)
        return Moments(total, gradient, diagonal)

    def product(self, phi: np.ndarray, v: np.ndarray) -> np.ndarray:
        """See `Likelihood`."""
        return self._add(kernels.product, phi, (v,), self.layout.size)

    def information(self, phi: np.ndarray) -> np.ndarray:
        """See `Likelihood`."""
        return self._add(kernels.information, phi, (), (self.layout.size, self.layout.size))

    def draws(self, phi: np.ndarray) -> np.ndarray:
        """See `Likelihood`."""
        self._update(phi)
        total = np.zeros((DRAWS, self.layout.size))
        for o, e_WK in zip(self.orders, self._worths, strict=True):
            kernels.draw(phi, *self.layout, *_arrays(o), e_WK, o.key_W, total)
        return total

    def skewness(self, phi: np.ndarray, root_NS: np.ndarray) -> np.ndarray:
        """See `Likelihood`."""
        self._update(phi)
        total = np.zeros(self.layout.num_items)
        for o, e_WK in zip(self.orders, self._worths, strict=True):
            kernels.skewness(phi, self.layout.num_items, o.items_WK, o.weight_W, o.judge_W, o.stages, e_WK, root_NS, total)
        return total

    def counts(self) -> Counts:
        """See `Likelihood`."""
        size, comparisons = self.layout.num_items, 0.0
        windows_N, wins_N, windows_J = np.zeros(size), np.zeros(size), np.zeros(self.layout.num_judges)
        graph = scipy.sparse.csr_matrix((size, size), dtype=bool)
        for o in self.orders:
            k = o.items_WK.shape[1]
            for a in range(k):
                num_below = k - 1 - a if a < o.stages else 0
                windows_N += np.bincount(o.items_WK[:, a], o.weight_W, size)
                wins_N += np.bincount(o.items_WK[:, a], o.weight_W * num_below, size)
                if a:
                    ones = np.ones(len(o.items_WK), bool)
                    graph += scipy.sparse.csr_matrix((ones, (o.items_WK[:, a - 1], o.items_WK[:, a])), (size, size))
            comparisons += float(o.weight_W.sum()) * o.stages
            if o.judge_W is not None:
                windows_J += np.bincount(o.judge_W, o.weight_W, self.layout.num_judges)
        return Counts(windows_N, wins_N, connected_components(graph, directed=False)[1], comparisons, windows_J)

    def _add(self, kernel: Callable[..., None], phi: np.ndarray, args: tuple, shape: int | tuple[int, int]) -> np.ndarray:
        """Return the sum over windows that a kernel adds to an array of this shape."""
        self._update(phi)
        total = np.zeros(shape)
        for o, e_WK in zip(self.orders, self._worths, strict=True):
            kernel(phi, *self.layout, *_arrays(o), e_WK, *args, total)
        return total

    def _update(self, phi: np.ndarray) -> None:
        """Compute the worths at phi, unless the last sum was at the same phi."""
        if not np.array_equal(phi, self._phi):
            for o, e_WK in zip(self.orders, self._worths, strict=True):
                kernels.worths(phi, *self.layout, o.items_WK, o.positions_WK, o.judge_W, e_WK)
            self._phi = phi.copy()


def _arrays(o: Orders) -> tuple:
    return o.items_WK, o.weight_W, o.positions_WK, o.judge_W, o.stages


def _validated(o: Orders, layout: Layout, first_key: int) -> Orders:
    """Return the orders with the array types of the kernels; judges and positions are dropped unless they are modelled.

    Raises:
        ValueError: the shapes do not fit, or judges are modelled but `judge_W` or `positions_WK` is missing.
    """
    items_WK = np.ascontiguousarray(o.items_WK, np.int32)
    if items_WK.ndim != 2 or items_WK.shape[1] < 2 or len(items_WK) != len(o.weight_W) or o.stages < 1:
        raise ValueError(
            "orders need items of shape (W, K) with K >= 2, weights of shape (W,) and top >= 1; got "
            f"{items_WK.shape}, {o.weight_W.shape}, {o.top}"
        )
    judges, positions = (None, None) if not layout.num_judges else (o.judge_W, o.positions_WK)
    if layout.num_judges and (judges is None or positions is None):
        raise ValueError(f"a model of {layout.num_judges} judges needs judge_W and positions_WK in all orders")
    key_W = np.arange(first_key, first_key + len(items_WK)) if o.key_W is None else o.key_W
    return Orders(
        items_WK, np.ascontiguousarray(o.weight_W, float),
        None if positions is None else np.ascontiguousarray(positions, np.int8),
        None if judges is None else np.ascontiguousarray(judges, np.int32), o.top, np.ascontiguousarray(key_W, np.uint64),
    )  # fmt: skip
