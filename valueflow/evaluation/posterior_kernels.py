"""Compiled loops of the evaluator: likelihood, mean and quantiles of one unknown theta on a grid (design/posterior-grid.md).

A unit's posterior is stored as the terms of its windows, not as densities on the grid. It is evaluated at every 64th point
first, then only where it has mass, at as few points as resolve its shape. Each unit is computed on its own, in the order of its
windows, so its numbers are bitwise the same whatever else is computed with it.

The order of arithmetic is fixed: saved scores must be reproduced to the last digit.

Shapes: U units (a response and a value), S stages of a unit's windows, N windows, K texts in a window, A anchors, L levels,
G points of the grid, I points at which one posterior is evaluated, H entries of `STEPS`.
"""

from typing import NamedTuple

import numba
import numpy as np

compiled = numba.njit(cache=True, nogil=True, error_model="numpy")  # no divisor is 0; checks for it prevent vectorization
# Distances between the points evaluated, and the number of points with mass that suffices.
STEPS = np.array([64, 32, 16, 8, 4, 2, 1])
MIN_POINTS = 28
# Densities below this share of the maximum are ignored.
NEGLIGIBLE = 1e-9
# Nats by which a product of factors may differ from 1 before its logarithm is taken, so that it stays finite.
MAX_PRODUCT_NATS = 300.0


class WindowTerms(NamedTuple):
    """Likelihood terms of each unit's windows, for u = sharpness * theta of the response.

    The log-likelihood is lift u - sum over stages of scale log(worth + e^u), up to a constant.
    """

    worth_US: np.ndarray  # summed worth of the anchors not yet chosen at the stage
    scale_US: np.ndarray  # likelihood weight of the stage
    num_U: np.ndarray  # number of stages of each unit
    lift_U: np.ndarray  # summed weight of the windows in which the response is not last


@compiled
def add_windows(unit_N, window_NK, order_NK, weight_N, worth_A, worth_US, scale_US, num_U, lift_U):
    """Append the terms of answered windows to their units' (`WindowTerms`); a weight mixes an order with its reverse.

    Stages after the response was chosen do not depend on it.
    """
    k = window_NK.shape[1]
    worth_K = np.empty(k)
    for n in range(len(unit_N)):
        unit, weight = unit_N[n], weight_N[n]
        for reverse in (False, True):
            scale = 1.0 if np.isnan(weight) else (1.0 - weight if reverse else weight)
            if reverse and np.isnan(weight):
                continue
            worth, response_rank = 0.0, k - 1
            for a in range(k - 1, -1, -1):
                text = window_NK[n, order_NK[n, k - 1 - a if reverse else a]]
                if text < 0:
                    response_rank = a
                else:
                    worth += worth_A[text]
                worth_K[a] = worth
            if response_rank < k - 1:
                lift_U[unit] += scale
            for a in range(min(response_rank, k - 2) + 1):
                worth_US[unit, num_U[unit]] = worth_K[a]
                scale_US[unit, num_U[unit]] = scale
                num_U[unit] += 1


@compiled
def points(u_G, prior_G, x_G):
    """Return u, e^u, log prior and intensity x at every 64th, 32nd, ... point of the grid, contiguous, shape (H, 4, G)."""
    table = np.empty((len(STEPS), 4, len(u_G)))
    for h in range(len(STEPS)):
        for i in range((len(u_G) - 1) // STEPS[h] + 1):
            g = i * STEPS[h]
            table[h, 0, i], table[h, 1, i], table[h, 2, i], table[h, 3, i] = u_G[g], np.exp(u_G[g]), prior_G[g], x_G[g]
    return table


@compiled
def _fill_log_posterior(worth_S, scale_S, lift, point_4G, first, log_I, divisor_I):
    """Fill log and divisor at the points from `first` on, so that exp(log) / divisor is the density up to a constant."""
    size = len(log_I)
    u_I, worth_I = point_4G[0, first : first + size], point_4G[1, first : first + size]
    prior_I = point_4G[2, first : first + size]
    for i in range(size):
        log_I[i] = prior_I[i] + lift * u_I[i]
        divisor_I[i] = 1.0
    # worth + e^u = worth (1 + e^u / worth); the first factor is constant. Factors of plain stages are multiplied while their
    # product stays finite, which saves logarithms.
    max_factors = max(int(MAX_PRODUCT_NATS / max(u_I[size - 1] - np.log(worth_S.min()), 1.0)), 1) if len(worth_S) else 1
    factors = 0
    for s in range(len(worth_S)):
        worth, scale = worth_S[s], scale_S[s]
        inverse = 1.0 / worth
        if scale == 1.0:
            if factors == max_factors:
                for i in range(size):
                    log_I[i] -= np.log(divisor_I[i])
                    divisor_I[i] = 1.0
                factors = 0
            for i in range(size):
                divisor_I[i] *= 1.0 + worth_I[i] * inverse
            factors += 1
        else:
            for i in range(size):
                log_I[i] -= scale * np.log1p(worth_I[i] * inverse)


@compiled
def log_posteriors(worth_US, scale_US, num_U, lift_U, point_H4G):
    """Return the log-posterior of every unit at every point, up to a constant, shape (U, G)."""
    log_UG = np.empty((len(num_U), point_H4G.shape[2]))
    divisor_G = np.empty(point_H4G.shape[2])
    for u in range(len(num_U)):
        n = num_U[u]
        _fill_log_posterior(worth_US[u, :n], scale_US[u, :n], lift_U[u], point_H4G[-1], 0, log_UG[u], divisor_G)
        log_UG[u] -= np.log(divisor_G)
    return log_UG


@compiled
def _fill_density(worth_S, scale_S, lift, point_H4G, p_G, divisor_G):
    """Fill a density with sum 1 (trapezoid rule, unit steps) at the points with mass.

    Returns the index in STEPS, the first point and the number of points.
    """
    last = point_H4G.shape[2] - 1
    low, high = 0, last  # points of the full grid between which the mass lies
    for h in range(len(STEPS)):
        step = STEPS[h]
        first = low // step
        size = min(high // step + 1, last // step) - first + 1
        if 0 < h < len(STEPS) - 1 and size < MIN_POINTS:
            continue
        _fill_log_posterior(worth_S, scale_S, lift, point_H4G[h], first, p_G[:size], divisor_G[:size])
        largest, highest = -np.inf, 0.0
        for i in range(size):
            largest = p_G[i] if p_G[i] > largest else largest
        for i in range(size):
            p_G[i] = np.exp(p_G[i] - largest) / divisor_G[i]
            highest = p_G[i] if p_G[i] > highest else highest
        begin, end = 0, size - 1
        while p_G[begin] < NEGLIGIBLE * highest:
            begin += 1
        while p_G[end] < NEGLIGIBLE * highest:
            end -= 1
        if end - begin + 1 >= MIN_POINTS:
            break
        low, high = max(first + begin - 1, 0) * step, min((first + end + 1) * step, last)
    begin, end = max(begin - 1, 0), min(end + 1, size - 1)  # an integral needs two points
    size = end - begin + 1
    total = -(p_G[begin] + p_G[end]) / 2
    for i in range(begin, end + 1):
        total += p_G[i]
    for i in range(size):
        p_G[i] = p_G[begin + i] / total
    return h, first + begin, size


@compiled
def _quantile(level, p_I, x_I):
    """Return the x below which the integral of the density p is `level`; points are one step apart."""
    size, total = len(p_I), 0.0
    for i in range(1, size):
        left, right = p_I[i - 1], p_I[i]
        trapezoid = (left + right) / 2
        # The integral between two points is that of the cubic through four; within it the density is taken as linear.
        mass = trapezoid if i in (1, size - 1) else (13.0 * (left + right) - p_I[i - 2] - p_I[i + 1]) / 24.0
        if total + mass >= level:
            part = (level - total) / mass * trapezoid
            share = 2.0 * part / (left + np.sqrt(max(left * left + 2.0 * (right - left) * part, 0.0)))
            return x_I[i - 1] + (x_I[i] - x_I[i - 1]) * min(share, 1.0)
        total += mass
    return x_I[-1]


@compiled
def quantiles(worth_US, scale_US, num_U, lift_U, point_H4G, levels_UL):
    """Return the quantiles of u at the levels of each unit's posterior, shape (U, L)."""
    quantile_UL = np.empty(levels_UL.shape)
    p_G, divisor_G = np.empty(point_H4G.shape[2]), np.empty(point_H4G.shape[2])
    for u in range(len(num_U)):
        n = num_U[u]
        h, first, size = _fill_density(worth_US[u, :n], scale_US[u, :n], lift_U[u], point_H4G, p_G, divisor_G)
        for i in range(levels_UL.shape[1]):
            quantile_UL[u, i] = _quantile(levels_UL[u, i], p_G[:size], point_H4G[h, 0, first : first + size])
    return quantile_UL


@compiled
def summaries(worth_US, scale_US, num_U, lift_U, point_H4G, low, high):
    """Return the posterior mean of x and its quantiles at two levels, shape (U, 3)."""
    summary_U3 = np.empty((len(num_U), 3))
    p_G, divisor_G = np.empty(point_H4G.shape[2]), np.empty(point_H4G.shape[2])
    for u in range(len(num_U)):
        n = num_U[u]
        h, first, size = _fill_density(worth_US[u, :n], scale_US[u, :n], lift_U[u], point_H4G, p_G, divisor_G)
        x_I = point_H4G[h, 3, first : first + size]
        mean = -(p_G[0] * x_I[0] + p_G[size - 1] * x_I[size - 1]) / 2
        for i in range(size):
            mean += p_G[i] * x_I[i]
        summary_U3[u, 0] = min(max(mean, x_I[0]), x_I[size - 1])  # rounding errors must not leave the scale
        summary_U3[u, 1] = _quantile(low, p_G[:size], x_I)
        summary_U3[u, 2] = _quantile(high, p_G[:size], x_I)
    return summary_U3
