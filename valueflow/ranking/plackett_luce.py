"""Plackett-Luce: log-worths of texts from windows ordered by judges, with standard errors.

P(order) = prod_j exp(theta_j) / sum_{l >= j} exp(theta_l)   (Plackett 1975; Luce 1959; METHOD: VIDB step 3)

Shapes: W windows, K texts in a window, N texts. Items are integers 0..N-1; names are the caller's business.
Everything the solver needs from the data is a sum over windows, so `fit` takes any object with `Sums`' methods: one
`Shard` in this process, or many on a cluster (`valueflow.distributed.aggregate`).
"""

from typing import NamedTuple, Protocol

import numpy as np
import scipy.linalg
import scipy.sparse
from scipy.sparse.csgraph import connected_components

MAX_NEWTON = 100
MAX_CONJUGATE = 500
MAX_EM = 500
# A judge that never contradicts itself would drive the estimated spread to infinity; nats.
MAX_PRIOR_SD = 10.0


class NotConverged(RuntimeError):
    """The fit did not reach its tolerance; there is no result."""


class Orders(NamedTuple):
    """Windows of one length: item numbers best first, and the weight of each (1 for a plain answer).

    A preference with probability p is two rows, weights p and 1-p; a tie is two rows of weight 1/2.
    """

    items_WK: np.ndarray
    weight_W: np.ndarray


class Moments(NamedTuple):
    """Log-likelihood, its gradient (N,) and the diagonal of the information (N,) at some theta."""

    log_likelihood: float
    gradient_N: np.ndarray
    diagonal_N: np.ndarray


class Counts(NamedTuple):
    """Per item: windows it was in, items it was placed above (weighted), and the connected component's number."""

    num_windows_N: np.ndarray
    wins_N: np.ndarray
    component_N: np.ndarray
    num_comparisons: float


class Sums(Protocol):
    """Sums over all windows; the place where a cluster can enter."""

    def moments(self, theta_N: np.ndarray) -> Moments:
        """Log-likelihood, gradient, diagonal of the information."""

    def product(self, theta_N: np.ndarray, v_N: np.ndarray) -> np.ndarray:
        """Information times a vector."""

    def information(self, theta_N: np.ndarray) -> scipy.sparse.csr_matrix:
        """Sparse information matrix."""

    def skewness(self, theta_N: np.ndarray, covariance_NN: np.ndarray) -> np.ndarray:
        """Third derivatives contracted with a covariance."""

    def counts(self) -> Counts:
        """Windows, wins, components."""


class Fit(NamedTuple):
    """Log-worths (mean zero) and how they were reached.

    `theta_N` is the posterior mean to second order, `mode_N` the MAP estimate. With many texts the mode alone is biased
    towards zero (the posterior is skewed, and one skewed coordinate per text adds up): intervals around it cover too little.
    """

    theta_N: np.ndarray
    mode_N: np.ndarray
    standard_error_N: np.ndarray
    prior_sd: float
    log_likelihood: float
    iterations: int
    gradient_norm: float
    tolerance: float
    counts: Counts

    @property
    def num_components(self) -> int:
        """Connected components of the comparison graph; above 1, thetas of different components are not comparable."""
        return len(np.unique(self.counts.component_N))


class Shard:
    """Sums over windows held in this process."""

    def __init__(self, num_items: int, orders: list[Orders]) -> None:
        for items_WK, weight_W in orders:
            if items_WK.shape[1] < 2 or len(items_WK) != len(weight_W):
                raise ValueError(f"orders need two or more items and one weight each, got {items_WK.shape}, {weight_W.shape}")
        self.num_items = num_items
        self.orders = [Orders(np.ascontiguousarray(i.T), w) for i, w in orders]  # (K, W): each place is contiguous

    def moments(self, theta_N: np.ndarray) -> Moments:
        """Log-likelihood, gradient and diagonal of the information in one pass."""
        log_likelihood, gradient, diagonal = 0.0, np.zeros(self.num_items), np.zeros(self.num_items)
        for items_KW, weight_W in self.orders:
            x_KW, e_KW, tail_KW = _tails(theta_N, items_KW)
            log_likelihood += float(weight_W @ (x_KW[:-1] - np.log(tail_KW)).sum(0))
            inverse = 1.0 / tail_KW
            first, second = _running(inverse), _running(inverse**2)
            stays = np.ones_like(x_KW)
            stays[-1] = 0.0
            self._add(gradient, items_KW, weight_W * (stays - e_KW * first))
            self._add(diagonal, items_KW, weight_W * (e_KW * first - e_KW**2 * second))
        return Moments(log_likelihood, gradient, diagonal)

    def product(self, theta_N: np.ndarray, v_N: np.ndarray) -> np.ndarray:
        """Information matrix times a vector: each stage adds diag(p) - p p'."""
        total = np.zeros(self.num_items)
        for items_KW, weight_W in self.orders:
            _, e_KW, tail_KW = _tails(theta_N, items_KW)
            v_KW = v_N[items_KW]
            inverse = 1.0 / tail_KW
            mean_v = np.cumsum((e_KW * v_KW)[::-1], axis=0)[::-1][:-1] * inverse
            self._add(total, items_KW, weight_W * e_KW * (v_KW * _running(inverse) - _running(mean_v * inverse)))
        return total

    def information(self, theta_N: np.ndarray) -> scipy.sparse.csr_matrix:
        """The information matrix (N, N), sparse: entries only where two items met."""
        size = (self.num_items, self.num_items)
        total = scipy.sparse.csr_matrix(size)
        for items_KW, weight_W in self.orders:
            _, e_KW, tail_KW = _tails(theta_N, items_KW)
            inverse = 1.0 / tail_KW
            first, second = _running(inverse), _running(inverse**2)
            for a in range(len(items_KW)):
                for b in range(a + 1):
                    entry = -e_KW[a] * e_KW[b] * second[b]
                    if a == b:
                        entry += e_KW[a] * first[a]
                    total += scipy.sparse.csr_matrix((weight_W * entry, (items_KW[a], items_KW[b])), size)
        return total + scipy.sparse.tril(total, -1).T + scipy.sparse.triu(total, 1).T

    def skewness(self, theta_N: np.ndarray, covariance_NN: np.ndarray) -> np.ndarray:
        """Third derivatives of sum log-sum-exp contracted with a covariance: sum_bc kappa_abc C_bc for each item a."""
        total = np.zeros(self.num_items)
        for items_KW, weight_W in self.orders:
            _, e_KW, tail_KW = _tails(theta_N, items_KW)
            for stage in range(len(items_KW) - 1):
                left = items_KW[stage:]
                p_LW = e_KW[stage:] / tail_KW[stage]
                mean_LW = np.stack([(covariance_NN[item, left] * p_LW).sum(0) for item in left])
                spread_LW = covariance_NN[left, left] - 2 * mean_LW + (mean_LW * p_LW).sum(0)
                self._add(total, left, weight_W * p_LW * (spread_LW - (p_LW * spread_LW).sum(0)))
        return total

    def counts(self) -> Counts:
        """Windows, wins and connected components."""
        windows, wins = np.zeros(self.num_items), np.zeros(self.num_items)
        edges: list[np.ndarray] = []
        comparisons = 0.0
        for items_KW, weight_W in self.orders:
            k = len(items_KW)
            self._add(windows, items_KW, np.broadcast_to(weight_W, items_KW.shape))
            self._add(wins, items_KW, weight_W * (k - 1 - np.arange(k))[:, None])
            edges += [np.stack([items_KW[a], items_KW[a + 1]]) for a in range(k - 1)]
            comparisons += float(weight_W.sum()) * (k - 1)
        pairs = np.concatenate(edges, axis=1) if edges else np.zeros((2, 0), int)
        graph = scipy.sparse.csr_matrix((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), (self.num_items,) * 2)
        return Counts(windows, wins, connected_components(graph, directed=False)[1], comparisons)

    def _add(self, total: np.ndarray, items_KW: np.ndarray, amount_KW: np.ndarray) -> None:
        for place in range(len(items_KW)):
            total += np.bincount(items_KW[place], amount_KW[place], self.num_items)


def _tails(theta_N: np.ndarray, items_KW: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X = theta of the items less the window's largest, e = exp(x), and sums of e from each stage on (last left out)."""
    x_KW = theta_N[items_KW]
    x_KW = x_KW - x_KW.max(0)
    e_KW = np.exp(x_KW)
    return x_KW, e_KW, np.cumsum(e_KW[::-1], axis=0)[::-1][:-1]


def _running(stage_JW: np.ndarray) -> np.ndarray:
    """Sum over the stages an item took part in; the last item took part in all of them."""
    total = np.cumsum(stage_JW, axis=0)
    return np.concatenate([total, total[-1:]])


def fit(num_items: int, sums: Sums, prior_sd: float | None = None, tolerance: float = 1e-9) -> Fit:
    """Return log-worths under independent N(0, prior_sd^2) priors, with standard errors.

    The mode is found by Newton's method. The mean is mode - C s / 2 with the posterior covariance C and the skewness s
    (Tierney & Kadane's second-order term), and the standard errors come from the information at the mean. In simulation
    (tests/ranking) the intervals theta +- 1.96 SE cover 94-96 %; around the mode they cover 89-94 %.

    Args:
        num_items: N.
        sums: the data.
        prior_sd: in nats; None estimates it from the data by EM, so that the intervals are calibrated for the texts at hand.
        tolerance: largest gradient entry per window of that item.

    Raises:
        NotConverged: the tolerance was not reached, or there is nothing to fit.
    """
    counts = sums.counts()
    if counts.num_comparisons == 0:
        raise NotConverged("no usable comparison: every ranking is missing or broken")
    mode, iterations, spread = np.zeros(num_items), 0, (2.0 if prior_sd is None else prior_sd)
    for _ in range(MAX_EM):
        mode, norm, log_likelihood, steps = _newton(sums, counts, mode, spread**-2, tolerance)
        iterations += steps
        covariance = _covariance(sums.information(mode), spread**-2)
        mean = mode - 0.5 * covariance @ sums.skewness(mode, covariance)
        covariance = _covariance(sums.information(mean), spread**-2)
        updated = min(float(np.sqrt((mean @ mean + np.trace(covariance)) / num_items)), MAX_PRIOR_SD)
        if prior_sd is not None or abs(updated - spread) < 1e-3 * spread:
            break
        spread = updated
    centred = np.diag(covariance) - 2 * covariance.mean(0) + covariance.mean()
    error = np.sqrt(np.clip(centred, 0.0, None))
    return Fit(mean - mean.mean(), mode, error, spread, log_likelihood, iterations, norm, tolerance, counts)


def _newton(
    sums: Sums, counts: Counts, theta: np.ndarray, precision: float, tolerance: float
) -> tuple[np.ndarray, float, float, int]:
    scale = np.maximum(counts.num_windows_N, 1.0)
    current = sums.moments(theta)
    for step in range(1, MAX_NEWTON + 1):
        gradient = current.gradient_N - precision * theta
        norm = float(np.max(np.abs(gradient) / scale))
        if norm <= tolerance:
            return theta, norm, current.log_likelihood, step
        direction = _solve(sums, theta, gradient, current.diagonal_N + precision, precision)
        objective = current.log_likelihood - 0.5 * precision * theta @ theta
        # At most 5 nats a step: far from the optimum a Newton step can leave the range where exp() is finite.
        slope, length = float(gradient @ direction), min(1.0, 5.0 / float(np.max(np.abs(direction))))
        while True:
            proposal = theta + length * direction
            moved = sums.moments(proposal)
            gain = moved.log_likelihood - 0.5 * precision * proposal @ proposal - objective
            if gain >= 1e-4 * length * slope or length * slope < 1e-10 * abs(objective):
                break
            length *= 0.5
        theta, current = proposal, moved
    raise NotConverged(f"gradient {norm:.2e} per comparison after {MAX_NEWTON} Newton steps, tolerance {tolerance:.0e}")


def _solve(sums: Sums, theta: np.ndarray, right: np.ndarray, diagonal: np.ndarray, precision: float) -> np.ndarray:
    """Preconditioned conjugate gradients on (information + precision I) x = right."""
    x, residual = np.zeros_like(right), right.copy()
    z = residual / diagonal
    p, rz = z.copy(), float(residual @ z)
    goal = 1e-2 * min(1.0, np.sqrt(rz)) * np.sqrt(rz)
    for _ in range(MAX_CONJUGATE):
        hp = sums.product(theta, p) + precision * p
        alpha = rz / float(p @ hp)
        x += alpha * p
        residual -= alpha * hp
        z = residual / diagonal
        rz, before = float(residual @ z), rz
        if np.sqrt(rz) <= goal:
            break
        p = z + (rz / before) * p
    return x


def _covariance(information: scipy.sparse.csr_matrix, precision: float) -> np.ndarray:
    """Inverse of the posterior information; dense, 8 N^2 bytes (800 MB for VIDB's 10,000 texts a value)."""
    dense = information.toarray()
    dense[np.diag_indices_from(dense)] += precision
    factor, failed = scipy.linalg.lapack.dpotrf(dense, lower=True, overwrite_a=True)
    if failed:
        raise NotConverged("the information matrix is not positive definite; set aggregate.prior_sd to a smaller value")
    inverse = scipy.linalg.lapack.dpotri(factor, lower=True, overwrite_c=True)[0]
    lower = np.tril(inverse)
    return lower + np.tril(lower, -1).T
