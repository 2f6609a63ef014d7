"""Held-out log scores of Plackett-Luce, Bradley-Terry and Thurstone's case V on the same pairs.

Shapes: N texts, E pairs.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import log_expit, log_ndtr

from valueflow.config import Config
from valueflow.ranking.held_out import HeldOutPairs
from valueflow.ranking.likelihood import LikelihoodShard
from valueflow.ranking.newton import NotConverged, posterior_mode
from valueflow.ranking.orders import Orders
from valueflow.ranking.pairs import Pairs, differences, pairs_of, sharpness
from valueflow.ranking.prior import parameter_prior

SPREADS = (0.5, 1.0, 2.0)
PROBIT = 1.702  # logistic(1.702 x) and the normal distribution function differ by less than 0.01 (Haley 1952)
MAX_STEPS = 2_000  # of L-BFGS


class ModelCheck(Config):
    """A model's mean log score per pair (nats), its difference from Plackett-Luce's, and the standard error of that."""

    model: str
    prior_sd: float
    score: float
    difference: float
    error: float


def compare_models(
    held_out: HeldOutPairs, training: list[Orders], likelihood: LikelihoodShard, tolerance: float
) -> list[ModelCheck]:
    """Return held-out log scores of three models, all at the posterior mode.

    Plackett-Luce; Bradley-Terry (1952), in which each pair of a window counts as if asked alone; and Thurstone's (1927) case V
    (normal instead of logistic, on pairs). Each model takes the best of three prior spreads by held-out score: half, once and
    twice the fitted one, for Thurstone divided by 1.702, the nats in its unit. Judges stay at their fitted values.

    Raises:
        NotConverged: a model's fit missed its tolerance.
    """
    pairs, fitted = pairs_of(training, likelihood.layout.num_items), held_out.fit
    scores = {"plackett-luce": _best(held_out, lambda spread: _logistic(held_out, likelihood, spread, tolerance))}
    if all(o.items_WK.shape[1] == 2 for o in training):
        scores["bradley-terry"] = scores["plackett-luce"]  # the same model
    else:
        items_E2 = np.stack([pairs.first_E, pairs.second_E], axis=1)
        positions_E2 = np.stack([pairs.first_position_E, pairs.second_position_E], axis=1)
        as_pairs = LikelihoodShard(
            likelihood.layout.num_items, [Orders(items_E2, pairs.weight_E, positions_E2, pairs.judge_E)],
            *likelihood.layout[1:],
        )  # fmt: skip
        scores["bradley-terry"] = _best(held_out, lambda spread: _logistic(held_out, as_pairs, spread, tolerance))
    scores["thurstone"] = _best(held_out, lambda spread: _normal(held_out, pairs, spread))
    weight_E, checks = held_out.pairs.weight_E, []
    for model, (spread, score_E) in scores.items():
        gain_E = score_E - scores["plackett-luce"][1]
        difference = float(np.average(gain_E, weights=weight_E))
        error = np.sqrt((np.bincount(held_out.cluster_E, weight_E * (gain_E - difference)) ** 2).sum()) / weight_E.sum()
        sd = spread * fitted.prior_sd / (PROBIT if model == "thurstone" else 1.0)
        score = float(np.average(score_E, weights=weight_E))
        checks.append(ModelCheck(model=model, prior_sd=sd, score=score, difference=difference, error=float(error)))
    return checks


def _best(held_out: HeldOutPairs, scores: Callable[[float], np.ndarray]) -> tuple[float, np.ndarray]:
    """Return the spread with the best mean score, and its scores (E,)."""
    return max(((s, scores(s)) for s in SPREADS), key=lambda candidate: float(held_out.pairs.weight_E @ candidate[1]))


def _logistic(held_out: HeldOutPairs, likelihood: LikelihoodShard, spread: float, tolerance: float) -> np.ndarray:
    """Return log scores at the mode of Plackett-Luce (E,)."""
    fitted = held_out.fit
    effects = np.concatenate([fitted.beta_J, fitted.gamma_JP.ravel()])
    prior = parameter_prior(likelihood.layout, spread * fitted.prior_sd, effects)
    start = np.concatenate([fitted.mode_N, effects])
    phi = posterior_mode(likelihood, likelihood.counts(), start, prior, tolerance).phi
    return log_expit(differences(held_out.pairs, phi[: len(fitted.mode_N)], fitted))


def _normal(held_out: HeldOutPairs, pairs: Pairs, spread: float) -> np.ndarray:
    """Return log scores at the mode of Thurstone's case V (E,), by L-BFGS; theta is in standard deviations of a difference."""
    from scipy.optimize import minimize  # here, since its import takes each worker half a second of a core

    fitted, n, sd = held_out.fit, len(held_out.fit.mode_N), spread * held_out.fit.prior_sd / PROBIT
    sharpness_E = sharpness(pairs, fitted)

    def objective(theta_N: np.ndarray) -> tuple[float, np.ndarray]:
        x_E = differences(pairs, theta_N, fitted, PROBIT)
        log_E = log_ndtr(x_E)
        # The inverse Mills ratio, from logarithms, which do not underflow.
        slope_E = pairs.weight_E * sharpness_E * np.exp(-0.5 * (x_E**2 + np.log(2 * np.pi)) - log_E)
        gradient_N = np.bincount(pairs.first_E, slope_E, n) - np.bincount(pairs.second_E, slope_E, n)
        return theta_N @ theta_N / (2 * sd**2) - pairs.weight_E @ log_E, theta_N / sd**2 - gradient_N

    options = {"maxiter": MAX_STEPS, "maxfun": 2 * MAX_STEPS, "ftol": 1e-11, "gtol": 1e-3}
    result = minimize(objective, fitted.mode_N / PROBIT, jac=True, method="L-BFGS-B", options=options)
    if not result.success:
        raise NotConverged(f"Thurstone's model, fitted to compare: {result.message}")
    return log_ndtr(differences(held_out.pairs, result.x, fitted, PROBIT))
