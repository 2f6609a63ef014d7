"""The loops of Plackett-Luce, compiled: one pass over windows each, float64, no array larger than the data.

Parameters phi are theta (N items) and, where judges are modelled, beta (J judges) and gamma (J x P places shown):
x = beta_j theta_i + gamma_jp is the log-worth of item i at place p for judge j; without judges x = theta_i. A stage chooses the
next best of the items left, with probabilities p = e / tail; its information is diag(p) - p p'.

Shapes: W windows, K items in a window (best first), stages <= K - 1 choices (fewer for partial orders), S columns of a factor.
`places_WK` and `judge_W` are None for plain data; numba then compiles the judges away.
"""

import numba
import numpy as np

compiled = numba.njit(cache=True, nogil=True)


@compiled
def worths(phi, num_items, num_judges, num_places, items_WK, places_WK, judge_W, e_WK):
    """Fill e = exp(x - max of the window); the largest is 1."""
    num_windows, k = items_WK.shape
    for w in range(num_windows):
        largest = -np.inf
        for a in range(k):
            x = phi[items_WK[w, a]]
            if judge_W is not None:
                j = judge_W[w]
                x = x * phi[num_items + j] + phi[num_items + num_judges + j * num_places + places_WK[w, a]]
            e_WK[w, a] = x
            largest = max(largest, x)
        for a in range(k):
            x = e_WK[w, a]
            e_WK[w, a] = 1.0 if x == largest else np.exp(x - largest)


@compiled
def moments(phi, num_items, num_judges, num_places, items_WK, weight_W, places_WK, judge_W, stages, e_WK, gradient, diagonal):
    """Return the log-likelihood; add its gradient and the diagonal of the information."""
    num_windows, k = items_WK.shape
    tail, total = np.empty(stages), 0.0
    for w in range(num_windows):
        weight, left, moved, squared = weight_W[w], 0.0, 0.0, 0.0
        for a in range(k - 1, -1, -1):
            left += e_WK[w, a]
            if judge_W is not None:
                moved += e_WK[w, a] * phi[items_WK[w, a]]
                squared += e_WK[w, a] * phi[items_WK[w, a]] ** 2
            if a < stages:
                tail[a] = left
                if judge_W is not None:
                    diagonal[num_items + judge_W[w]] += weight * (squared / left - (moved / left) ** 2)
        # The product of at most nine probabilities cannot underflow unless they are below 1e-34: logs are taken there only.
        product, logs, first, second = 1.0, 0.0, 0.0, 0.0
        for a in range(k):
            e = e_WK[w, a]
            if a < stages:
                inverse = 1.0 / tail[a]
                first += inverse
                second += inverse * inverse
                product *= e * inverse
                if product < 1e-250:
                    logs += np.log(max(product, 1e-320))
                    product = 1.0
            g = weight * ((1.0 if a < stages else 0.0) - e * first)
            d = weight * (e * first - e * e * second)
            i = items_WK[w, a]
            if judge_W is not None:
                j = judge_W[w]
                beta, place = phi[num_items + j], num_items + num_judges + j * num_places + places_WK[w, a]
                gradient[num_items + j] += g * phi[i]
                gradient[place] += g
                diagonal[place] += d
                g *= beta
                d *= beta * beta
            gradient[i] += g
            diagonal[i] += d
        total += weight * (logs + np.log(product))
    return total


@compiled
def product(phi, num_items, num_judges, num_places, items_WK, weight_W, places_WK, judge_W, stages, e_WK, v, out):
    """Add the information times v."""
    num_windows, k = items_WK.shape
    dx, tail, mean = np.empty(k), np.empty(stages), np.empty(stages)
    for w in range(num_windows):
        left, moved = 0.0, 0.0
        for a in range(k - 1, -1, -1):
            i = items_WK[w, a]
            dx[a] = v[i]
            if judge_W is not None:
                j = judge_W[w]
                place = num_items + num_judges + j * num_places + places_WK[w, a]
                dx[a] = v[i] * phi[num_items + j] + v[num_items + j] * phi[i] + v[place]
            left += e_WK[w, a]
            moved += e_WK[w, a] * dx[a]
            if a < stages:
                tail[a] = 1.0 / left
                mean[a] = moved / left
        first, drawn = 0.0, 0.0
        for a in range(k):
            if a < stages:
                first += tail[a]
                drawn += mean[a] * tail[a]
            t = weight_W[w] * e_WK[w, a] * (dx[a] * first - drawn)
            _spread(out, t, phi, num_items, num_judges, num_places, items_WK, places_WK, judge_W, w, a)


@compiled
def _spread(out, t, phi, num_items, num_judges, num_places, items_WK, places_WK, judge_W, w, a):
    """Add a change per unit of x to the parameters behind x."""
    i = items_WK[w, a]
    if judge_W is None:
        out[i] += t
    else:
        j = judge_W[w]
        out[i] += t * phi[num_items + j]
        out[num_items + j] += t * phi[i]
        out[num_items + num_judges + j * num_places + places_WK[w, a]] += t


@compiled
def information(phi, num_items, num_judges, num_places, items_WK, weight_W, places_WK, judge_W, stages, e_WK, out):
    """Add the dense information matrix."""
    num_windows, k = items_WK.shape
    first, second, tail = np.empty(k), np.empty(k), np.empty(k)
    width = 1 if judge_W is None else 3
    index, slope = np.empty((k, width), np.int64), np.ones((k, width))
    for w in range(num_windows):
        left = 0.0
        for a in range(k - 1, -1, -1):
            left += e_WK[w, a]
            tail[a] = left
        f, s = 0.0, 0.0
        for a in range(k):
            if a < stages:
                f += 1.0 / tail[a]
                s += 1.0 / tail[a] ** 2
            first[a], second[a] = f, s
            index[a, 0] = items_WK[w, a]
            if judge_W is not None:
                j = judge_W[w]
                index[a, 1], index[a, 2] = num_items + j, num_items + num_judges + j * num_places + places_WK[w, a]
                slope[a, 0], slope[a, 1] = phi[num_items + j], phi[items_WK[w, a]]
        for a in range(k):
            for b in range(k):
                entry = -e_WK[w, a] * e_WK[w, b] * second[min(a, b)]
                if a == b:
                    entry += e_WK[w, a] * first[a]
                for m in range(width):
                    for n in range(width):
                        out[index[a, m], index[b, n]] += weight_W[w] * entry * slope[a, m] * slope[b, n]


@compiled
def _mix(key):
    """One round of splitmix64: 64 bits that look random, from a counter."""
    key += np.uint64(0x9E3779B97F4A7C15)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


@compiled
def draw(phi, num_items, num_judges, num_places, items_WK, weight_W, places_WK, judge_W, stages, e_WK, key_W, out):
    """Add 64 random vectors (columns of out) whose covariance is the information; the signs are the bits of a hash of the
    window's key, so that they do not depend on where and in which order windows are kept.
    """
    num_windows, k = items_WK.shape
    root, one = np.empty(k), np.uint64(1)
    signs = np.empty(k, np.uint64)
    for w in range(num_windows):
        scale = np.sqrt(weight_W[w])
        for stage in range(stages):
            left = 0.0
            for a in range(stage, k):
                left += e_WK[w, a]
            for a in range(stage, k):
                root[a] = np.sqrt(e_WK[w, a] / left)
                signs[a] = _mix(key_W[w] ^ _mix(np.uint64(1024 * stage + a)))
            for s in range(64):
                drawn = 0.0
                for a in range(stage, k):
                    bit = (signs[a] >> np.uint64(s)) & one
                    drawn += root[a] if bit else -root[a]
                for a in range(stage, k):
                    bit = (signs[a] >> np.uint64(s)) & one
                    t = scale * ((root[a] if bit else -root[a]) - root[a] ** 2 * drawn)
                    _spread(out[s], t, phi, num_items, num_judges, num_places, items_WK, places_WK, judge_W, w, a)


@compiled
def skewness(phi, num_items, items_WK, weight_W, judge_W, stages, e_WK, root_NS, out):
    """Add sum_bc kappa_abc C_bc for each item a: third derivatives of sum log-sum-exp contracted with C = root root'."""
    num_windows, k = items_WK.shape
    size = root_NS.shape[1]
    p, spread, mean = np.empty(k), np.empty(k), np.empty(size)
    for w in range(num_windows):
        beta = 1.0 if judge_W is None else phi[num_items + judge_W[w]]
        for stage in range(stages):
            left = 0.0
            for a in range(stage, k):
                left += e_WK[w, a]
            mean[:] = 0.0
            for a in range(stage, k):
                p[a] = e_WK[w, a] / left
                mean += p[a] * root_NS[items_WK[w, a]]
            middle = 0.0
            for a in range(stage, k):
                spread[a] = 0.0
                for s in range(size):
                    spread[a] += (root_NS[items_WK[w, a], s] - mean[s]) ** 2
                middle += p[a] * spread[a]
            for a in range(stage, k):
                out[items_WK[w, a]] += weight_W[w] * beta**3 * p[a] * (spread[a] - middle)
