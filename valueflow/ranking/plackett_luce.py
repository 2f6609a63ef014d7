"""Plackett-Luce: log-worths of texts from windows ordered by judges, with standard errors.

P(order) = prod_j exp(x_j) / sum_{l >= j} exp(x_l) with x = theta_i (Plackett 1975; Luce 1959; METHOD: VIDB step 3) or, where
judges are modelled, x = beta_j theta_i + gamma_{j,p} for judge j and the position p in which item i was shown.

Shapes: N items (texts), J judges, P positions; `phi` is the vector of all parameters (`likelihood.Layout`). The solver needs
only sums over windows from the data, so `fit` takes any `likelihood.Likelihood`: a `LikelihoodShard` in this process, or many
on a cluster (`valueflow.distributed.build.aggregate`).
"""

from typing import NamedTuple

import numpy as np

from valueflow.ranking.covariance import covariance
from valueflow.ranking.likelihood import Counts, Likelihood
from valueflow.ranking.newton import NotConverged, posterior_mode, solve
from valueflow.ranking.prior import ItemPriors, parameter_prior

MAX_EM = 500
# Nats. Without bounds, the estimated spread would go to infinity for a judge without contradictions, to 0 for a random one.
MIN_PRIOR_SD, MAX_PRIOR_SD = 0.1, 10.0
# A judge whose sharpness is below this number of its standard errors is uninformative: it is reported and left out of the fit.
MIN_BETA_Z = 2.0
SAMPLES = 16  # of theta, over which the likelihood of judges is averaged


class Fit(NamedTuple):
    """Log-worths (mean zero) and how the solver reached them.

    `theta_N` is the posterior mean to second order, `mode_N` the MAP estimate. With many texts the mode is biased towards zero
    (the posterior is skewed, and the skewness of all coordinates adds up), so intervals around it cover too little.
    `root_NS` is a factor of the posterior covariance, exact or from 64 draws: see `contrast_errors`.
    """

    theta_N: np.ndarray
    mode_N: np.ndarray
    standard_error_N: np.ndarray
    root_NS: np.ndarray
    prior_sd: float
    log_likelihood: float
    iterations: int
    gradient_norm: float
    tolerance: float
    counts: Counts
    beta_J: np.ndarray
    beta_error_J: np.ndarray
    gamma_JP: np.ndarray
    gamma_error_JP: np.ndarray

    @property
    def num_components(self) -> int:
        """Connected components of the comparison graph; above 1, thetas of different components are not comparable."""
        return len(np.unique(self.counts.component_N))

    def contrast_errors(self, a_C: np.ndarray, b_C: np.ndarray) -> np.ndarray:
        """Return standard errors of theta_a - theta_b for C pairs; from draws they are accurate to about 9 %."""
        return np.sqrt(((self.root_NS[a_C] - self.root_NS[b_C]) ** 2).sum(1))


def fit(
    likelihood: Likelihood,
    prior_sd: float | None = None,
    tolerance: float = 1e-9,
    item_priors: ItemPriors | None = None,
) -> Fit:
    """Return log-worths under independent N(0, prior_sd^2) priors, with standard errors.

    The mode is found by Newton's method. The mean is mode - C s / 2 with the posterior covariance C and the skewness s
    (Tierney & Kadane's second-order term); standard errors come from the information at the mean. In simulations
    (tests/ranking) the intervals theta +- 1.96 SE cover 94-96 %; around the mode they cover 89-94 %. Judges are estimated by
    EM and their errors come from the joint information; mean and errors of theta take the judges as fixed.

    Args:
        likelihood: the data.
        prior_sd: in nats; None estimates it from the data by EM, so that the intervals are calibrated for these texts.
        tolerance: largest gradient entry per window of that item or judge.
        item_priors: priors of single items, for example texts of a published version; they fix the zero of theta, and
            `prior_sd` is the spread of the other items around it.

    Raises:
        NotConverged: the tolerance was not reached, or there is nothing to fit.
    """
    layout, counts = likelihood.layout, likelihood.counts()
    if counts.num_comparisons == 0:
        raise NotConverged("no usable comparison: every ranking is missing or failed")
    n, j, _ = layout
    phi = parameter_prior(layout, 1.0).mean
    free = np.ones(layout.size - n, bool)  # beta and gamma that are estimated
    free[:j] = j > 1
    if j > 1 and item_priors is None:
        # Theta and beta share one scale, so one judge is fixed at 1: the most informative one when all are equally sharp.
        equal_judges = parameter_prior(layout, prior_sd or 2.0, phi[n:], item_priors)
        phi = posterior_mode(likelihood, counts, phi, equal_judges, max(tolerance, 1e-4)).phi
        moments = likelihood.moments(phi)
        slope_J, curve_J = moments.gradient[n : n + j], np.maximum(moments.diagonal[n : n + j], 1e-12)
        free[np.argmax((1 + slope_J / curve_J) * np.sqrt(curve_J))] = False
    result = _expectation_maximization(likelihood, counts, phi, prior_sd, tolerance, free, item_priors)
    if j < 2:
        return result
    silent_J = result.beta_J < MIN_BETA_Z * result.beta_error_J
    if silent_J.any():
        phi = np.concatenate([result.mode_N, np.where(silent_J, 0.0, result.beta_J), result.gamma_JP.ravel()])
        free[:j] &= ~silent_J
        result = _expectation_maximization(likelihood, counts, phi, prior_sd, tolerance, free, item_priors)
    return result if item_priors else _rescaled(result, likelihood)


def _expectation_maximization(
    likelihood: Likelihood, counts: Counts, mode: np.ndarray, prior_sd: float | None, tolerance: float, free: np.ndarray,
    item_priors: ItemPriors | None,
) -> Fit:  # fmt: skip
    """Alternate the posterior of theta with updates of its spread and of the judges until both have converged."""
    layout, iterations, spread = likelihood.layout, 0, (2.0 if prior_sd is None else prior_sd)
    (n, j, p), near, search = layout, None, _SpreadSearch()
    shift_free = item_priors is None  # a common shift of theta changes no window
    unknown_N = np.ones(n, bool) if item_priors is None else np.isnan(item_priors.sd_N)
    for _ in range(MAX_EM):
        prior = parameter_prior(layout, spread, mode[n:], item_priors)
        mode, norm, log_likelihood, steps = posterior_mode(likelihood, counts, mode, prior, tolerance)
        iterations += steps
        near = covariance(likelihood, mode, prior, n, shift_free, near)
        skewness = np.zeros(layout.size)
        skewness[:n] = likelihood.skewness(mode, near.root[:n])
        exact = near.draws is None
        mean = mode - 0.5 * (near.root @ (near.root.T @ skewness) if exact else solve(likelihood, mode, skewness, prior, 1e-6))
        mean[n:] = mode[n:]
        at_mean = covariance(likelihood, mean, prior, n, shift_free, near)
        new_spread = spread
        if prior_sd is None and unknown_N.any():
            middle = mean[:n].mean() if shift_free else 0.0
            # theta's common shift has variance spread^2 / N and is in neither the mean nor the variance.
            second = ((mean[:n] - middle) ** 2 + at_mean.variance[:n])[unknown_N].sum() + (spread**2 if shift_free else 0.0)
            new_spread = search.next(spread, float(np.sqrt(second / unknown_N.sum())))
        step = _judge_step(likelihood, mean, at_mean.root[:n], free)
        if abs(new_spread - spread) < 1e-3 * spread and np.abs(step).max(initial=0.0) < 1e-3:
            break
        spread = new_spread
        mode[n:] += step
    else:
        raise NotConverged(f"the spread of theta and the judges have not settled after {MAX_EM} rounds of EM")
    error, gamma_JP = np.sqrt(at_mean.variance), mean[n + j :].reshape(j, p)
    if j:
        joint = covariance(likelihood, mean, parameter_prior(layout, spread, item_priors=item_priors), n, shift_free)
        error[n:] = np.where(free, np.sqrt(joint.variance[n:]), 0.0)
    return Fit(
        mean[:n] - (mean[:n].mean() if shift_free else 0.0), mode[:n], error[:n], at_mean.root[:n], spread, log_likelihood,
        iterations, norm, tolerance, counts, mean[n : n + j], error[n : n + j],
        gamma_JP - gamma_JP.sum(1, keepdims=True) / max(p, 1), error[n + j :].reshape(j, p),
    )  # fmt: skip


class _SpreadSearch:
    """Search for the fixed point of EM's update of the spread, by secants of log step against log spread.

    Plain EM is slow where windows say little about the spread: it takes hundreds of steps of 0.1 %, and a small step does not
    mean that the fixed point is near.
    """

    def __init__(self) -> None:
        self.previous: tuple[float, float] | None = None

    def next(self, spread: float, em_spread: float) -> float:
        """Return the spread to try after `spread`, which EM would update to `em_spread`."""
        x, h = np.log(spread), np.log(em_spread / spread)
        move = h
        if self.previous is not None and x != self.previous[0]:
            slope = (h - self.previous[1]) / (x - self.previous[0])
            # The secant is used only near a fixed point that EM would reach.
            move = -h / slope if -1.0 < slope < -1e-3 else h
        self.previous = (x, h)
        return float(np.clip(np.exp(x + np.clip(move, -1.0, 1.0)), MIN_PRIOR_SD, MAX_PRIOR_SD))


def _judge_step(likelihood: Likelihood, mean: np.ndarray, root_NS: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Return a Newton step of beta and gamma on the likelihood expected over theta's posterior.

    At a single theta, beta would be biased: uncertain worths look spread out, so judges would look less sharp than they are.
    """
    n, at = likelihood.layout.num_items, np.flatnonzero(free) + likelihood.layout.num_items
    step = np.zeros(len(free))
    if not len(at):
        return step
    rng, slope = np.random.default_rng(0), np.zeros(len(mean))
    for z_S in rng.normal(size=(SAMPLES // 2, root_NS.shape[1])):
        for sign in (1.0, -1.0):
            phi = mean.copy()
            phi[:n] += sign * (root_NS @ z_S)
            slope += likelihood.moments(phi).gradient / SAMPLES
    prior = parameter_prior(likelihood.layout, 1.0)
    slope -= prior.precision * (mean - prior.mean)
    curve = np.stack([likelihood.product(mean, np.eye(1, len(mean), i)[0])[at] for i in at])
    step[free] = np.linalg.solve(curve + np.diag(prior.precision[at]), slope[at])
    return np.clip(step, -0.5, 0.5)


def _rescaled(result: Fit, likelihood: Likelihood) -> Fit:
    """Return the fit with theta in nats of the average judge: the mean log sharpness, weighted by its precision, is 0.

    Without weights, a judge that answers almost at random would set the unit: its sharpness is near 0 and its log far below
    that of the others. The precision of log beta_j is beta_j^2 times the information on beta_j; it does not depend on the unit.
    """
    n, j, _ = likelihood.layout
    phi = np.concatenate([result.theta_N, result.beta_J, result.gamma_JP.ravel()])
    informative_J = result.beta_J > np.maximum(MIN_BETA_Z * result.beta_error_J, 1e-6)
    beta = result.beta_J[informative_J]
    precision = beta**2 * likelihood.moments(phi).diagonal[n : n + j][informative_J]
    c = float(np.exp(np.average(np.log(beta), weights=precision)))
    return result._replace(
        theta_N=c * result.theta_N, mode_N=c * result.mode_N, standard_error_N=c * result.standard_error_N,
        root_NS=c * result.root_NS, prior_sd=c * result.prior_sd, beta_J=result.beta_J / c,
        beta_error_J=result.beta_error_J / c,
    )  # fmt: skip
