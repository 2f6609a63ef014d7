"""Held-out pairs as a fit predicts them, and residuals with errors that allow for dependent answers.

Shapes: N texts, J judges, P positions, E pairs, S columns of a factor of the covariance, Q = J x P.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit

from valueflow.config import Config
from valueflow.numerics.intervals import Z95
from valueflow.ranking.pairs import Pairs, differences, sharpness
from valueflow.ranking.plackett_luce import Fit
from valueflow.ranking.prior import GAMMA_SD

CHUNK = 2_000  # pairs at a time; each has a row of the covariance factor in memory


class Residual(Config):
    """Observed minus expected share of wins in a group of pairs, with its 95 % interval."""

    group: str
    pairs: int
    residual: float
    low: float
    high: float


class HeldOutPairs(NamedTuple):
    """Held-out pairs and their prediction by a fit to the other windows."""

    pairs: Pairs
    fit: Fit
    logit_E: np.ndarray  # log-odds that the first text wins, nats
    probability_E: np.ndarray  # that the first text wins
    slope_E: np.ndarray  # derivative of the probability by the difference of log-worths
    cluster_E: np.ndarray  # number of the window's set of texts


def predict(pairs: Pairs, fitted: Fit) -> HeldOutPairs:
    """Return the pairs with their probabilities under the posterior: a logistic under a normal difference (MacKay 1992)."""
    chunks = np.split(np.arange(len(pairs.first_E)), range(CHUNK, len(pairs.first_E), CHUNK))
    error_E = np.concatenate([fitted.contrast_errors(pairs.first_E[c], pairs.second_E[c]) for c in chunks])
    shrink_E = 1 / np.sqrt(1 + np.pi * (sharpness(pairs, fitted) * error_E) ** 2 / 8)
    logit_E = shrink_E * differences(pairs, fitted.theta_N, fitted)
    slope_E = shrink_E * expit(logit_E) * expit(-logit_E)
    cluster_E = np.unique(pairs.text_set_E, return_inverse=True)[1]
    return HeldOutPairs(pairs, fitted, logit_E, expit(logit_E), slope_E, cluster_E)


def total_residual(held_out: HeldOutPairs, factor_E: np.ndarray) -> tuple[float, float]:
    """Return the sum over pairs of weight * factor * (1 - probability of the outcome), and its standard error; expected: 0.

    The variance of the answers is the variance between windows of different texts, and at least that of independent answers:
    the observed variance says little where nearly all answers are as predicted. The variance of the predictions is added by
    the delta method.
    """
    pairs, fitted = held_out.pairs, held_out.fit
    n, (j, p) = len(fitted.theta_N), fitted.gamma_JP.shape
    residual_E = pairs.weight_E * factor_E * expit(-held_out.logit_E)
    independent = float(pairs.weight_E @ (factor_E**2 * held_out.probability_E * expit(-held_out.logit_E)))
    answers = max(float((np.bincount(held_out.cluster_E, residual_E) ** 2).sum()), independent)
    derivative_E = pairs.weight_E * factor_E * held_out.slope_E
    by_theta_E = derivative_E * sharpness(pairs, fitted)
    change_N = np.bincount(pairs.first_E, by_theta_E, n) - np.bincount(pairs.second_E, by_theta_E, n)
    predictions = float(((change_N @ fitted.root_NS) ** 2).sum())
    if j:
        by_beta_E = derivative_E * (fitted.theta_N[pairs.first_E] - fitted.theta_N[pairs.second_E])
        change_J = np.bincount(pairs.judge_E, by_beta_E, j)
        first_E, second_E = pairs.judge_E * p + pairs.first_position_E, pairs.judge_E * p + pairs.second_position_E
        change_Q = np.bincount(first_E, derivative_E, j * p) - np.bincount(second_E, derivative_E, j * p)
        predictions += float(((change_J * fitted.beta_error_J) ** 2).sum())
        # Without the variance of a common shift of a judge's gammas, which changes no order and comes from the prior alone.
        variance_J = np.maximum((fitted.gamma_error_JP**2).mean(1) - GAMMA_SD**2 / p, 0.0) * p / max(p - 1, 1)
        predictions += float(np.repeat(variance_J, p) @ change_Q**2)
    return float(residual_E.sum()), float(np.sqrt(answers + predictions))


def mean_residual(held_out: HeldOutPairs, group: str, factor_E: np.ndarray) -> list[Residual]:
    """Return the mean residual of the pairs with a factor other than 0; an empty list without such pairs."""
    pairs = float(held_out.pairs.weight_E[factor_E != 0].sum())
    if not pairs:
        return []
    total, error = total_residual(held_out, factor_E)
    mean, half = total / pairs, Z95 * error / pairs
    return [Residual(group=group, pairs=round(pairs), residual=mean, low=mean - half, high=mean + half)]
