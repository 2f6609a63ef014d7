"""The loops of the evaluator, compiled: likelihoods, means and quantiles of one unknown theta on a grid.

Shapes: U units, G grid points, N windows, K texts in a window, A anchors, L levels. A unit's row is computed by itself, in the
order of its windows, so that its numbers are the same bit by bit whatever else is computed with it.
"""

import numpy as np

from valueflow.ranking.kernels import compiled

# exp(log-worth) stays a positive finite number; differences beyond are certain anyway.
FARTHEST = 700.0


@compiled
def _stages(shown_K, order_K, x_A, reverse, tail):
    """Fill the log-worth left beside the response at each stage up to its own; return their number, and if it is chosen."""
    k = len(order_K)
    left, at = -np.inf, k - 1
    for a in range(k - 1, -1, -1):
        text = shown_K[order_K[k - 1 - a if reverse else a]]
        if text < 0:
            at = a
        else:
            x = x_A[text]
            low, high = min(left, x), max(left, x)
            left = high + np.log1p(np.exp(low - high))
        tail[a] = left
    return min(at, k - 2) + 1, at < k - 1


@compiled
def _add_window(scale, tail, num, chosen, u_G, worth_G, inverse_G, product_G, out_G):
    """Add scale * log P(order | theta): stages after the response's do not depend on it."""
    product_G[:] = 1.0
    for g in range(len(u_G)):
        out_G[g] += scale * (u_G[g] if chosen else 0.0)
    for s in range(num):
        t = tail[s]
        worth = np.exp(min(max(t, -FARTHEST), FARTHEST))
        inverse = 1.0 / worth
        for g in range(len(u_G)):
            # log(e^t + e^u) = max + log(1 + e^-|t - u|); the logarithms of all stages are taken as one.
            product_G[g] *= 1.0 + min(worth_G[g] * inverse, inverse_G[g] * worth)
            out_G[g] -= scale * max(t, u_G[g])
    for g in range(len(u_G)):
        out_G[g] -= scale * np.log(product_G[g])


@compiled
def add_windows(unit_N, shown_NK, order_NK, weight_N, x_A, u_G, log_UG):
    """Add the log-likelihood of answered windows to their units' rows; a weight mixes an order with its reverse."""
    worth_G = np.exp(np.minimum(np.maximum(u_G, -FARTHEST), FARTHEST))
    inverse_G = 1.0 / worth_G
    product_G, tail = np.empty(len(u_G)), np.empty(shown_NK.shape[1])
    for n in range(len(unit_N)):
        out_G, weight = log_UG[unit_N[n]], weight_N[n]
        num, chosen = _stages(shown_NK[n], order_NK[n], x_A, False, tail)
        if np.isnan(weight):
            _add_window(1.0, tail, num, chosen, u_G, worth_G, inverse_G, product_G, out_G)
        else:
            _add_window(weight, tail, num, chosen, u_G, worth_G, inverse_G, product_G, out_G)
            num, chosen = _stages(shown_NK[n], order_NK[n], x_A, True, tail)
            _add_window(1.0 - weight, tail, num, chosen, u_G, worth_G, inverse_G, product_G, out_G)


@compiled
def normalised(log_UG):
    """Return the weights of each row, which sum to 1."""
    p_UG = np.empty_like(log_UG)
    for u in range(len(log_UG)):
        _weights(log_UG[u], p_UG[u])
    return p_UG


@compiled
def _weights(log_G, p_G):
    largest, total = log_G.max(), 0.0
    for g in range(len(log_G)):
        # Beyond 50 nats a point weighs less than the rounding of the sum.
        p_G[g] = np.exp(log_G[g] - largest) if log_G[g] > largest - 50.0 else 0.0
        total += p_G[g]
    for g in range(len(log_G)):
        p_G[g] /= total


@compiled
def _at(level, p_G, x_G):
    """The x at which the distribution reaches a level; each point's own mass counts by half, linear in between."""
    before = 0.0
    reached = 0.0
    for g in range(len(p_G)):
        here = before + 0.5 * p_G[g]
        if here >= level:
            if g == 0 or here == reached:
                return x_G[g]
            return x_G[g - 1] + (x_G[g] - x_G[g - 1]) * (level - reached) / (here - reached)
        reached = here
        before += p_G[g]
    return x_G[-1]


@compiled
def quantiles(log_UG, x_G, levels_UL):
    """Return x at the levels of each row, shape (U, L)."""
    found_UL, p_G = np.empty(levels_UL.shape), np.empty(len(x_G))
    for u in range(len(log_UG)):
        _weights(log_UG[u], p_G)
        for i in range(levels_UL.shape[1]):
            found_UL[u, i] = _at(levels_UL[u, i], p_G, x_G)
    return found_UL


@compiled
def summaries(log_UG, x_G, low, high):
    """Return mean of x and its values at two levels, shape (U, 3)."""
    found_US, p_G = np.empty((len(log_UG), 3)), np.empty(len(x_G))
    for u in range(len(log_UG)):
        _weights(log_UG[u], p_G)
        mean = 0.0
        for g in range(len(x_G)):
            mean += p_G[g] * x_G[g]
        found_US[u, 0] = mean
        found_US[u, 1] = _at(low, p_G, x_G)
        found_US[u, 2] = _at(high, p_G, x_G)
    return found_US
