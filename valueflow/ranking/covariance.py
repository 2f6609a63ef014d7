"""Posterior covariance of the Plackett-Luce parameters: exact for small problems, from random draws for large ones."""

from typing import NamedTuple

import numpy as np
import scipy.linalg

from valueflow.ranking.likelihood import DRAWS, Likelihood
from valueflow.ranking.newton import NotConverged, solve
from valueflow.ranking.prior import Prior

# Up to this number of parameters the covariance is exact and dense (8 N^2 bytes); above, it comes from 64 draws.
MAX_DENSE = 2000


class Covariance(NamedTuple):
    """A factor (parameters, S) of the posterior covariance, and its diagonal; neither has the free common shift of theta."""

    root: np.ndarray
    variance: np.ndarray
    draws: np.ndarray | None = None  # solutions for the random draws (64, parameters); None: the covariance is exact


def covariance(
    likelihood: Likelihood, phi: np.ndarray, prior: Prior, num_items: int, shift_free: bool, near: Covariance | None = None
) -> Covariance:
    """Return the posterior covariance at phi.

    Exact: the inverse Cholesky factor. Else from 64 draws x with covariance C, solved from draws y = C^-1 x of the information:
    given all others, x_i has variance 1 / d_i and mean x_i - y_i / d_i, so only the small part beyond 1 / d_i is estimated
    from draws (Rao-Blackwell: Papandreou & Yuille 2010; Siden et al. 2018).

    Args:
        likelihood: the data.
        phi: the parameters.
        prior: the prior.
        num_items: number of items; their theta come first in phi.
        shift_free: a common shift of theta changes no window, so it is removed from the covariance.
        near: the covariance at parameters close by, from which the solution starts.

    Raises:
        NotConverged: the information matrix is not positive definite.
    """
    size = len(phi)
    if size <= MAX_DENSE:
        dense = likelihood.information(phi)
        dense[np.diag_indices(size)] += prior.precision
        try:
            lower = scipy.linalg.cholesky(dense, lower=True, overwrite_a=True)
        except np.linalg.LinAlgError:
            raise NotConverged(
                "the information matrix is not positive definite; set aggregate.prior_sd to a smaller value"
            ) from None
        root = np.ascontiguousarray(scipy.linalg.solve_triangular(lower, np.eye(size), lower=True, overwrite_b=True).T)
        if shift_free:
            root[:num_items] -= root[:num_items].mean(0)
        return Covariance(root, (root**2).sum(1))
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (DRAWS, size))
    draws = likelihood.draws(phi) + np.sqrt(prior.precision) * signs
    diagonal = likelihood.moments(phi).diagonal + prior.precision
    guesses = [None] * DRAWS if near is None or near.draws is None else list(near.draws)
    # A residual of 1 % makes a variance too small by 0.01 %: the error of conjugate gradients is orthogonal to its solution.
    solutions = [solve(likelihood, phi, y, prior, 1e-2, diagonal, x) for y, x in zip(draws, guesses, strict=True)]
    root = np.stack(solutions, axis=1)
    if shift_free:
        root[:num_items] -= root[:num_items].mean(0)
    variance = 1 / diagonal + ((root - (draws / diagonal).T) ** 2).mean(1)
    return Covariance(root / np.sqrt(DRAWS), variance, np.stack(solutions))
