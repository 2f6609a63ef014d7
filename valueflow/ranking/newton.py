"""Posterior mode by Newton's method, with conjugate gradients for each step: memory linear in the number of parameters."""

from typing import NamedTuple

import numpy as np

from valueflow.ranking.likelihood import Counts, Likelihood
from valueflow.ranking.prior import FIXED, Prior

MAX_NEWTON = 100
MAX_CONJUGATE = 500


class NotConverged(RuntimeError):
    """The fit did not reach its tolerance; there is no result."""


class Mode(NamedTuple):
    """The posterior mode, its largest gradient entry per window, its log-likelihood (nats) and the Newton steps taken."""

    phi: np.ndarray
    gradient_norm: float
    log_likelihood: float
    steps: int


def posterior_mode(likelihood: Likelihood, counts: Counts, start: np.ndarray, prior: Prior, tolerance: float) -> Mode:
    """Return the posterior mode, by Newton's method with backtracking from `start`.

    Args:
        likelihood: the data.
        counts: its counts.
        start: parameters to start from.
        prior: the prior; parameters of precision 1e12 are fixed at its mean.
        tolerance: largest gradient entry, divided by the windows of that item or judge.

    Raises:
        NotConverged: the tolerance was not reached in 100 steps.
    """
    num_judged = np.concatenate([counts.num_windows_J, np.repeat(counts.num_windows_J, likelihood.layout.num_positions)])
    scale = np.maximum(np.concatenate([counts.num_windows_N, num_judged]), 1.0)
    fixed = prior.precision >= FIXED
    phi = np.where(fixed, prior.mean, start)
    current = likelihood.moments(phi)
    for step in range(1, MAX_NEWTON + 1):
        gradient = np.where(fixed, 0.0, current.gradient - prior.precision * (phi - prior.mean))
        norm = float(np.max(np.abs(gradient) / scale))
        if norm <= tolerance:
            return Mode(phi, norm, current.log_likelihood, step)
        diagonal = current.diagonal + prior.precision
        size = float(np.sqrt(gradient @ (gradient / diagonal)))
        direction = solve(likelihood, phi, gradient, prior, 1e-2 * min(1.0, size), diagonal)
        objective = current.log_likelihood - prior.penalty(phi)
        # At most 5 nats a step: far from the optimum a Newton step can leave the range in which exp() is finite.
        slope, length = float(gradient @ direction), min(1.0, 5.0 / float(np.max(np.abs(direction))))
        while True:
            proposal = phi + length * direction
            proposed = likelihood.moments(proposal)
            gain = proposed.log_likelihood - prior.penalty(proposal) - objective
            if gain >= 1e-4 * length * slope or length * slope < 1e-10 * abs(objective):
                break
            length *= 0.5
        phi, current = proposal, proposed
    raise NotConverged(f"gradient {norm:.2e} per comparison after {MAX_NEWTON} Newton steps, tolerance {tolerance:.0e}")


def solve(
    likelihood: Likelihood, phi: np.ndarray, right: np.ndarray, prior: Prior, goal: float, diagonal: np.ndarray | None = None,
    guess: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Return x with (information at phi + prior precision) x = right, by preconditioned conjugate gradients.

    Args:
        likelihood: the data.
        phi: the parameters at which the information is taken.
        right: the right side.
        prior: the prior.
        goal: size of the residual relative to that of `right`, both in the preconditioner's norm.
        diagonal: diagonal of the matrix, if it is known already.
        guess: where to start; None: 0.
    """
    if diagonal is None:
        diagonal = likelihood.moments(phi).diagonal + prior.precision
    x, residual = np.zeros_like(right), right.copy()
    if guess is not None:
        x = guess.copy()
        residual -= likelihood.product(phi, x) + prior.precision * x
    z = residual / diagonal
    p, rz = z.copy(), float(residual @ z)
    threshold = goal * np.sqrt(float(right @ (right / diagonal)))
    for _ in range(MAX_CONJUGATE):
        if np.sqrt(rz) <= threshold:
            break
        hp = likelihood.product(phi, p) + prior.precision * p
        alpha = rz / float(p @ hp)
        x += alpha * p
        residual -= alpha * hp
        z = residual / diagonal
        rz, previous = float(residual @ z), rz
        p = z + (rz / previous) * p
    return x
