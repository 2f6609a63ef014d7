"""The loops of the evaluator, compiled: likelihoods, means and quantiles of one unknown theta on a grid.

A unit's posterior is kept as what its windows say, not as numbers on the grid: it is looked at on every 64th point first, then
only where it has mass, on as few points as show its shape. Every unit is computed by itself, in the order of its windows, so
that its numbers are the same bit by bit whatever else is computed with it.

Shapes: U units, S stages of a unit's windows, N windows, K texts in a window, A anchors, L levels, G points of the grid, H of
steps between points (`STEPS`).
"""

from typing import NamedTuple

import numba
import numpy as np

compiled = numba.njit(cache=True, nogil=True, error_model="numpy")  # no divisor here is 0, and checks keep loops from vectors
# Every so many points, and how many of them at least must lie where there is mass.
STEPS = np.array([64, 32, 16, 8, 4, 2, 1])
ENOUGH = 28
# A density that is so small beside the highest weighs nothing.
NOTHING = 1e-9
# Nats of a factor that is as far from 1 as numbers may be multiplied before their logarithm is taken.
FINITE = 300.0


class WindowTerms(NamedTuple):
    """What answered windows say of units: log P at u is lift u - sum over stages of scale log(worth + e^u)."""

    worth_US: np.ndarray  # of the texts left beside the response, summed
    scale_US: np.ndarray
    num_U: np.ndarray  # stages of each unit
    lift_U: np.ndarray


@compiled
def add_windows(unit_N, shown_NK, order_NK, weight_N, worth_A, worth_US, scale_US, num_U, lift_U):
    """Note the stages of answered windows with their units (`Stages`); a weight mixes an order with its reverse.

    Stages after the response's own choice do not depend on it.
    """
    k = shown_NK.shape[1]
    left_K = np.empty(k)
    for n in range(len(unit_N)):
        unit, weight = unit_N[n], weight_N[n]
        for reverse in (False, True):
            scale = 1.0 if np.isnan(weight) else (1.0 - weight if reverse else weight)
            if reverse and np.isnan(weight):
                continue
            left, at = 0.0, k - 1
            for a in range(k - 1, -1, -1):
                text = shown_NK[n, order_NK[n, k - 1 - a if reverse else a]]
                if text < 0:
                    at = a
                else:
                    left += worth_A[text]
                left_K[a] = left
            if at < k - 1:
                lift_U[unit] += scale
            for a in range(min(at, k - 2) + 1):
                worth_US[unit, num_U[unit]] = left_K[a]
                scale_US[unit, num_U[unit]] = scale
                num_U[unit] += 1


@compiled
def points(u_G, prior_G, x_G):
    """Return u, e^u, log prior and x at the points of the grid, for each of STEPS side by side, shape (H, 4, G)."""
    table = np.empty((len(STEPS), 4, len(u_G)))
    for h in range(len(STEPS)):
        for i in range((len(u_G) - 1) // STEPS[h] + 1):
            g = i * STEPS[h]
            table[h, 0, i], table[h, 1, i], table[h, 2, i], table[h, 3, i] = u_G[g], np.exp(u_G[g]), prior_G[g], x_G[g]
    return table


@compiled
def _log(worth_S, scale_S, lift, point_4G, first, log_I, divisor_I):
    """Fill log-posterior and divisor at the points from `first` on: the density is exp(log) / divisor up to a constant."""
    size = len(log_I)
    u_I, worth_I = point_4G[0, first : first + size], point_4G[1, first : first + size]
    prior_I = point_4G[2, first : first + size]
    for i in range(size):
        log_I[i] = prior_I[i] + lift * u_I[i]
        divisor_I[i] = 1.0
    # Of worth + e^u the factor worth is a constant and may go; of plain stages what stays is multiplied while that is finite.
    most = max(int(FINITE / max(u_I[size - 1] - np.log(worth_S.min()), 1.0)), 1) if len(worth_S) else 1
    factors = 0
    for s in range(len(worth_S)):
        worth, scale = worth_S[s], scale_S[s]
        inverse = 1.0 / worth
        if scale == 1.0:
            if factors == most:
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
        _log(worth_US[u, :n], scale_US[u, :n], lift_U[u], point_H4G[-1], 0, log_UG[u], divisor_G)
        log_UG[u] -= np.log(divisor_G)
    return log_UG


@compiled
def _weighed(worth_S, scale_S, lift, point_H4G, p_G, divisor_G):
    """Fill a density whose integral is 1 step at the points with mass; return which of STEPS, the first point, their number."""
    last = point_H4G.shape[2] - 1
    low, high = 0, last  # on the grid itself: the mass lies between
    for h in range(len(STEPS)):
        step = STEPS[h]
        first = low // step
        size = min(high // step + 1, last // step) - first + 1
        if 0 < h < len(STEPS) - 1 and size < ENOUGH:
            continue
        _log(worth_S, scale_S, lift, point_H4G[h], first, p_G[:size], divisor_G[:size])
        largest, highest = -np.inf, 0.0
        for i in range(size):
            largest = p_G[i] if p_G[i] > largest else largest
        for i in range(size):
            p_G[i] = np.exp(p_G[i] - largest) / divisor_G[i]
            highest = p_G[i] if p_G[i] > highest else highest
        begin, end = 0, size - 1
        while p_G[begin] < NOTHING * highest:
            begin += 1
        while p_G[end] < NOTHING * highest:
            end -= 1
        if end - begin + 1 >= ENOUGH:
            break
        low, high = max(first + begin - 1, 0) * step, min((first + end + 1) * step, last)
    begin, end = max(begin - 1, 0), min(end + 1, size - 1)  # one point alone has no integral
    size = end - begin + 1
    total = -(p_G[begin] + p_G[end]) / 2
    for i in range(begin, end + 1):
        total += p_G[i]
    for i in range(size):
        p_G[i] = p_G[begin + i] / total
    return h, first + begin, size


@compiled
def _at(level, p_I, x_I):
    """The x below which the integral of a density p, one step from point to point, is a level."""
    size, reached = len(p_I), 0.0
    for i in range(1, size):
        left, right = p_I[i - 1], p_I[i]
        flat = (left + right) / 2
        # Between two points the density is taken as linear, but its integral as that of a cubic through four.
        here = flat if i in (1, size - 1) else (13.0 * (left + right) - p_I[i - 2] - p_I[i + 1]) / 24.0
        if reached + here >= level:
            part = (level - reached) / here * flat
            share = 2.0 * part / (left + np.sqrt(max(left * left + 2.0 * (right - left) * part, 0.0)))
            return x_I[i - 1] + (x_I[i] - x_I[i - 1]) * min(share, 1.0)
        reached += here
    return x_I[-1]


@compiled
def quantiles(worth_US, scale_US, num_U, lift_U, point_H4G, levels_UL):
    """Return u at the levels of each unit's posterior, shape (U, L)."""
    found_UL = np.empty(levels_UL.shape)
    p_G, divisor_G = np.empty(point_H4G.shape[2]), np.empty(point_H4G.shape[2])
    for u in range(len(num_U)):
        n = num_U[u]
        h, first, size = _weighed(worth_US[u, :n], scale_US[u, :n], lift_U[u], point_H4G, p_G, divisor_G)
        for i in range(levels_UL.shape[1]):
            found_UL[u, i] = _at(levels_UL[u, i], p_G[:size], point_H4G[h, 0, first : first + size])
    return found_UL


@compiled
def summaries(worth_US, scale_US, num_U, lift_U, point_H4G, low, high):
    """Return the posterior mean of x and its values at two levels, shape (U, 3)."""
    found_US = np.empty((len(num_U), 3))
    p_G, divisor_G = np.empty(point_H4G.shape[2]), np.empty(point_H4G.shape[2])
    for u in range(len(num_U)):
        n = num_U[u]
        h, first, size = _weighed(worth_US[u, :n], scale_US[u, :n], lift_U[u], point_H4G, p_G, divisor_G)
        x_I = point_H4G[h, 3, first : first + size]
        mean = -(p_G[0] * x_I[0] + p_G[size - 1] * x_I[size - 1]) / 2
        for i in range(size):
            mean += p_G[i] * x_I[i]
        found_US[u, 0] = min(max(mean, x_I[0]), x_I[size - 1])  # rounding must not leave the scale
        found_US[u, 1] = _at(low, p_G[:size], x_I)
        found_US[u, 2] = _at(high, p_G[:size], x_I)
    return found_US
