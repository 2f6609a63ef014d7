"""Compiled loops over windows for the Plackett-Luce likelihood: one pass each, float64, no array larger than the data.

The parameters phi are theta (N items) and, where judges are modelled, beta (J judges) and gamma (J x P positions). For judge j
the log-worth of item i at position p is x = beta_j theta_i + gamma_jp; without judges x = theta_i. Each stage chooses the best
of the items not yet chosen, with probabilities p = e / tail, where e = exp(x) and tail is the sum of e over these items; the
information of a stage is diag(p) - p p'.

The order of arithmetic is fixed: saved fits must be reproduced to the last digit.

Shapes: W windows, K items in a window (best first), stages <= K - 1 choices (fewer for partial orders), S columns of a factor.
`positions_WK` and `judge_W` are None for data without judges; numba then compiles the branches for judges away.
"""

import numba
import numpy as np

from valueflow.numerics import hashing

compiled = numba.njit(cache=True, nogil=True)


@compiled
def worths(phi, num_items, num_judges, num_positions, items_WK, positions_WK, judge_W, e_WK):
    """Fill e_WK with exp(x - the largest x of the window)."""
    num_windows, k = items_WK.shape
    for w in range(num_windows):
        largest = -np.inf
        for a in range(k):
            x = phi[items_WK[w, a]]
            if judge_W is not None:
                j = judge_W[w]
                x = x * phi[num_items + j] + phi[num_items + num_judges + j * num_positions + positions_WK[w, a]]
            e_WK[w, a] = x
            largest = max(largest, x)
        for a in range(k):
            x = e_WK[w, a]
            e_WK[w, a] = 1.0 if x == largest else np.exp(x - largest)


@compiled
def moments(
    phi, num_items, num_judges, num_positions, items_WK, weight_W, positions_WK, judge_W, stages, e_WK, gradient, diagonal
):
    """Return the log-likelihood; add its gradient and the diagonal of the information."""
    num_windows, k = items_WK.shape
    tail, total = np.empty(stages), 0.0
    for w in range(num_windows):
        weight, tail_sum, weighted_sum, weighted_square = weight_W[w], 0.0, 0.0, 0.0
        for a in range(k - 1, -1, -1):
            tail_sum += e_WK[w, a]
            if judge_W is not None:
                weighted_sum += e_WK[w, a] * phi[items_WK[w, a]]
                weighted_square += e_WK[w, a] * phi[items_WK[w, a]] ** 2
            if a < stages:
                tail[a] = tail_sum
                if judge_W is not None:
                    diagonal[num_items + judge_W[w]] += weight * (weighted_square / tail_sum - (weighted_sum / tail_sum) ** 2)
        # A product of at most nine probabilities underflows only if they are below 1e-34, so logarithms are rarely needed.
        product, logs, inverse_sum, inverse_square = 1.0, 0.0, 0.0, 0.0
        for a in range(k):
            e = e_WK[w, a]
            if a < stages:
                inverse = 1.0 / tail[a]
                inverse_sum += inverse
                inverse_square += inverse * inverse
                product *= e * inverse
                if product < 1e-250:
                    logs += np.log(max(product, 1e-320))
                    product = 1.0
            g = weight * ((1.0 if a < stages else 0.0) - e * inverse_sum)
            d = weight * (e * inverse_sum - e * e * inverse_square)
            i = items_WK[w, a]
            if judge_W is not None:
                j = judge_W[w]
                beta, gamma_index = phi[num_items + j], num_items + num_judges + j * num_positions + positions_WK[w, a]
                gradient[num_items + j] += g * phi[i]
                gradient[gamma_index] += g
                diagonal[gamma_index] += d
                g *= beta
                d *= beta * beta
            gradient[i] += g
            diagonal[i] += d
        total += weight * (logs + np.log(product))
    return total


@compiled
def product(phi, num_items, num_judges, num_positions, items_WK, weight_W, positions_WK, judge_W, stages, e_WK, v, out):
    """Add the information times v."""
    num_windows, k = items_WK.shape
    dx, inverse, mean = np.empty(k), np.empty(stages), np.empty(stages)
    for w in range(num_windows):
        tail_sum, weighted_sum = 0.0, 0.0
        for a in range(k - 1, -1, -1):
            i = items_WK[w, a]
            dx[a] = v[i]
            if judge_W is not None:
                j = judge_W[w]
                gamma_index = num_items + num_judges + j * num_positions + positions_WK[w, a]
                dx[a] = v[i] * phi[num_items + j] + v[num_items + j] * phi[i] + v[gamma_index]
            tail_sum += e_WK[w, a]
            weighted_sum += e_WK[w, a] * dx[a]
            if a < stages:
                inverse[a] = 1.0 / tail_sum
                mean[a] = weighted_sum / tail_sum
        inverse_sum, mean_sum = 0.0, 0.0
        for a in range(k):
            if a < stages:
                inverse_sum += inverse[a]
                mean_sum += mean[a] * inverse[a]
            t = weight_W[w] * e_WK[w, a] * (dx[a] * inverse_sum - mean_sum)
            _scatter(out, t, phi, num_items, num_judges, num_positions, items_WK, positions_WK, judge_W, w, a)


@compiled
def _scatter(out, t, phi, num_items, num_judges, num_positions, items_WK, positions_WK, judge_W, w, a):
    """Add t times the derivatives of x with respect to its parameters."""
    i = items_WK[w, a]
    if judge_W is None:
        out[i] += t
    else:
        j = judge_W[w]
        out[i] += t * phi[num_items + j]
        out[num_items + j] += t * phi[i]
        out[num_items + num_judges + j * num_positions + positions_WK[w, a]] += t


@compiled
def information(phi, num_items, num_judges, num_positions, items_WK, weight_W, positions_WK, judge_W, stages, e_WK, out):
    """Add the dense information matrix."""
    num_windows, k = items_WK.shape
    first, second, tail = np.empty(k), np.empty(k), np.empty(k)
    width = 1 if judge_W is None else 3
    index, slope = np.empty((k, width), np.int64), np.ones((k, width))
    for w in range(num_windows):
        tail_sum = 0.0
        for a in range(k - 1, -1, -1):
            tail_sum += e_WK[w, a]
            tail[a] = tail_sum
        f, s = 0.0, 0.0
        for a in range(k):
            if a < stages:
                f += 1.0 / tail[a]
                s += 1.0 / tail[a] ** 2
            first[a], second[a] = f, s
            index[a, 0] = items_WK[w, a]
            if judge_W is not None:
                j = judge_W[w]
                index[a, 1], index[a, 2] = num_items + j, num_items + num_judges + j * num_positions + positions_WK[w, a]
                slope[a, 0], slope[a, 1] = phi[num_items + j], phi[items_WK[w, a]]
        for a in range(k):
            for b in range(k):
                entry = -e_WK[w, a] * e_WK[w, b] * second[min(a, b)]
                if a == b:
                    entry += e_WK[w, a] * first[a]
                for m in range(width):
                    for n in range(width):
                        out[index[a, m], index[b, n]] += weight_W[w] * entry * slope[a, m] * slope[b, n]


splitmix64 = compiled(hashing.splitmix64)


@compiled
def draw(phi, num_items, num_judges, num_positions, items_WK, weight_W, positions_WK, judge_W, stages, e_WK, key_W, out):
    """Add 64 random vectors, the rows of `out`, whose covariance is the information.

    The signs are the bits of a hash of the window's key, so they do not depend on the shard or the row of a window.
    """
    num_windows, k = items_WK.shape
    root, one = np.empty(k), np.uint64(1)
    signs = np.empty(k, np.uint64)
    for w in range(num_windows):
        scale = np.sqrt(weight_W[w])
        for stage in range(stages):
            tail_sum = 0.0
            for a in range(stage, k):
                tail_sum += e_WK[w, a]
            for a in range(stage, k):
                root[a] = np.sqrt(e_WK[w, a] / tail_sum)
                signs[a] = splitmix64(key_W[w] ^ splitmix64(np.uint64(1024 * stage + a)))
            for s in range(64):
                signed_sum = 0.0
                for a in range(stage, k):
                    bit = (signs[a] >> np.uint64(s)) & one
                    signed_sum += root[a] if bit else -root[a]
                for a in range(stage, k):
                    bit = (signs[a] >> np.uint64(s)) & one
                    t = scale * ((root[a] if bit else -root[a]) - root[a] ** 2 * signed_sum)
                    _scatter(out[s], t, phi, num_items, num_judges, num_positions, items_WK, positions_WK, judge_W, w, a)


@compiled
def skewness(phi, num_items, items_WK, weight_W, judge_W, stages, e_WK, root_NS, out):
    """Add sum_bc kappa_abc C_bc for each item a: third derivatives of the log-sum-exp terms contracted with C = root root'."""
    num_windows, k = items_WK.shape
    size = root_NS.shape[1]
    p, spread, mean = np.empty(k), np.empty(k), np.empty(size)
    for w in range(num_windows):
        beta = 1.0 if judge_W is None else phi[num_items + judge_W[w]]
        for stage in range(stages):
            tail_sum = 0.0
            for a in range(stage, k):
                tail_sum += e_WK[w, a]
            mean[:] = 0.0
            for a in range(stage, k):
                p[a] = e_WK[w, a] / tail_sum
                mean += p[a] * root_NS[items_WK[w, a]]
            mean_spread = 0.0
            for a in range(stage, k):
                spread[a] = 0.0
                for s in range(size):
                    spread[a] += (root_NS[items_WK[w, a], s] - mean[s]) ** 2
                mean_spread += p[a] * spread[a]
            for a in range(stage, k):
                out[items_WK[w, a]] += weight_W[w] * beta**3 * p[a] * (spread[a] - mean_spread)
