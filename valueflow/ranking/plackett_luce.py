"""Plackett-Luce: log-worths of texts from windows ordered by judges, with standard errors.

P(order) = prod_j exp(x_j) / sum_{l >= j} exp(x_l), x = theta_i (Plackett 1975; Luce 1959; METHOD: VIDB step 3), or, where
judges are modelled, x = beta_j theta_i + gamma_{j,p} for judge j and the place p at which it was shown item i.

Shapes: N texts, J judges, P places; phi are all parameters (`sums.Layout`). Everything the solver needs from the data is a sum
over windows, so `fit` takes any object with `sums.Sums`' methods: one `Shard` in this process, or many on a cluster
(`valueflow.distributed.build.aggregate`).
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg

from valueflow.ranking.likelihood import DRAWS, Counts, Layout, Likelihood

Z95 = 1.959964  # a 95 % interval reaches so many standard errors to either side
MAX_NEWTON = 100
MAX_CONJUGATE = 500
MAX_EM = 500
# A judge that never contradicts itself would drive the estimated spread to infinity, one that says nothing to zero; nats.
MIN_PRIOR_SD, MAX_PRIOR_SD = 0.1, 10.0
# Up to so many parameters the covariance is exact and dense (8 N^2 bytes); above it comes from 64 draws, in memory linear in N.
EXACT = 2000
# Priors of a judge: sharpness around that of the one held at 1, and a place that wins or loses by up to about two nats.
BETA_SD, GAMMA_SD = 1.0, 1.0
# A judge whose sharpness is below so many of its standard errors says nothing: it is reported and left out.
UNSURE = 2.0
SAMPLES = 16  # of theta, over which the likelihood of judges is averaged
FIXED = 1e12  # precision of a parameter that is not estimated


class NotConverged(RuntimeError):
    """The fit did not reach its tolerance; there is no result."""


class Fit(NamedTuple):
    """Log-worths (mean zero) and how they were reached.

    `theta_N` is the posterior mean to second order, `mode_N` the MAP estimate. With many texts the mode alone is biased
    towards zero (the posterior is skewed, and one skewed coordinate per text adds up): intervals around it cover too little.
    `root_NS` is a factor of the posterior covariance, exact or of 64 draws: see `contrast_errors`.
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
        """Standard errors of theta_a - theta_b, C pairs of items; to about 9 % where the covariance comes from draws."""
        return np.sqrt(((self.root_NS[a_C] - self.root_NS[b_C]) ** 2).sum(1))


class Known(NamedTuple):
    """What is known of each item's theta before the windows: mean and standard deviation, NaN for items not known."""

    mean_N: np.ndarray
    sd_N: np.ndarray


class Prior(NamedTuple):
    """Independent normal priors of all parameters."""

    mean: np.ndarray
    precision: np.ndarray


def prior(layout: Layout, sd: float, effects: np.ndarray | None = None, known: Known | None = None) -> Prior:
    """Return the prior: theta ~ N(0, sd^2) or as known, beta ~ N(1, 1), gamma ~ N(0, 1) or held at `effects`."""
    n, j, p = layout
    mean = np.concatenate([np.zeros(n), np.ones(j), np.zeros(j * p)])
    precision = np.repeat([sd**-2, BETA_SD**-2, GAMMA_SD**-2], [n, j, j * p])
    if known is not None:
        mean[:n] = np.where(np.isnan(known.mean_N), 0.0, known.mean_N)
        precision[:n] = np.where(np.isnan(known.sd_N), sd**-2, known.sd_N**-2.0)
    if effects is not None:
        mean[n:], precision[n:] = effects, FIXED
    return Prior(mean, precision)


def fit(sums: Likelihood, prior_sd: float | None = None, tolerance: float = 1e-9, known: Known | None = None) -> Fit:
    """Return log-worths under independent N(0, prior_sd^2) priors, with standard errors.

    The mode is found by Newton's method. The mean is mode - C s / 2 with the posterior covariance C and the skewness s
    (Tierney & Kadane's second-order term), and the standard errors come from the information at the mean. In simulation
    (tests/ranking) the intervals theta +- 1.96 SE cover 94-96 %; around the mode they cover 89-94 %. Judges are estimated by
    EM, their errors come from the joint information; mean and errors of theta take them as known.

    Args:
        sums: the data.
        prior_sd: in nats; None estimates it from the data by EM, so that the intervals are calibrated for the texts at hand.
        tolerance: largest gradient entry per window of that item or judge.
        known: priors of items of which something is known, as the texts of a published version; they fix the zero of theta,
            and the spread is that of the others around it.

    Raises:
        NotConverged: the tolerance was not reached, or there is nothing to fit.
    """
    layout, counts = sums.layout, sums.counts()
    if counts.num_comparisons == 0:
        raise NotConverged("no usable comparison: every ranking is missing or broken")
    n, j, _ = layout
    phi = prior(layout, 1.0).mean
    free = np.ones(layout.size - n, bool)  # beta and gamma that are estimated
    free[:j] = j > 1
    if j > 1 and known is None:
        # Theta and beta share one scale, so one judge is held at 1: the one that, with all alike, is seen to say most.
        phi = maximum(sums, counts, phi, prior(layout, prior_sd or 2.0, phi[n:], known), max(tolerance, 1e-4))[0]
        at = sums.moments(phi)
        slope_J, curve_J = at.gradient[n : n + j], np.maximum(at.diagonal[n : n + j], 1e-12)
        free[np.argmax((1 + slope_J / curve_J) * np.sqrt(curve_J))] = False
    found = _settle(sums, counts, phi, prior_sd, tolerance, free, known)
    if j < 2:
        return found
    silent_J = found.beta_J < UNSURE * found.beta_error_J
    if silent_J.any():
        phi = np.concatenate([found.mode_N, np.where(silent_J, 0.0, found.beta_J), found.gamma_JP.ravel()])
        free[:j] &= ~silent_J
        found = _settle(sums, counts, phi, prior_sd, tolerance, free, known)
    return found if known else _scaled(found)


def _settle(
    sums: Likelihood, counts: Counts, mode: np.ndarray, prior_sd: float | None, tolerance: float, free: np.ndarray,
    known: Known | None,
) -> Fit:  # fmt: skip
    """The fit at the spread of theta and the judges that EM settles on, in turn with the posterior of theta given these."""
    layout, iterations, spread = sums.layout, 0, (2.0 if prior_sd is None else prior_sd)
    (n, j, p), exact, near, search = layout, layout.size <= EXACT, None, _Search()
    shifts = known is None  # a common shift of theta changes no window
    unknown_N = np.ones(n, bool) if known is None else np.isnan(known.sd_N)
    for _ in range(MAX_EM):
        believed = prior(layout, spread, mode[n:], known)
        mode, norm, log_likelihood, steps = maximum(sums, counts, mode, believed, tolerance)
        iterations += steps
        near = _covariance(sums, mode, believed, n, shifts, near)
        moved = np.zeros(layout.size)
        moved[:n] = sums.skewness(mode, near.root[:n])
        mean = mode - 0.5 * (near.root @ (near.root.T @ moved) if exact else _solve(sums, mode, moved, believed, 1e-6))
        mean[n:] = mode[n:]
        at_mean = _covariance(sums, mean, believed, n, shifts, near)
        updated = spread
        if prior_sd is None and unknown_N.any():
            middle = mean[:n].mean() if shifts else 0.0
            # theta's common shift has variance spread^2 / N and is left out of both.
            second = ((mean[:n] - middle) ** 2 + at_mean.variance[:n])[unknown_N].sum() + (spread**2 if shifts else 0.0)
            updated = search.next(spread, float(np.sqrt(second / unknown_N.sum())))
        step = _judges(sums, mean, at_mean.root[:n], free)
        if abs(updated - spread) < 1e-3 * spread and np.abs(step).max(initial=0.0) < 1e-3:
            break
        spread = updated
        mode[n:] += step
    else:
        raise NotConverged(f"the spread of theta and the judges have not settled after {MAX_EM} rounds of EM")
    error, gamma_JP = np.sqrt(at_mean.variance), mean[n + j :].reshape(j, p)
    if j:
        joint = _covariance(sums, mean, prior(layout, spread, known=known), n, shifts)
        error[n:] = np.where(free, np.sqrt(joint.variance[n:]), 0.0)
    return Fit(
        mean[:n] - (mean[:n].mean() if shifts else 0.0), mode[:n], error[:n], at_mean.root[:n], spread, log_likelihood,
        iterations, norm, tolerance, counts, mean[n : n + j], error[n : n + j],
        gamma_JP - gamma_JP.sum(1, keepdims=True) / max(p, 1), error[n + j :].reshape(j, p),
    )  # fmt: skip


class _Search:
    """Where EM's steps of the spread lead: its fixed point, by secants of log step against log spread.

    Plain EM creeps where windows say little of the spread: hundreds of steps of a part in a thousand each, and a small step
    then does not mean that the end is near.
    """

    def __init__(self) -> None:
        self.before: tuple[float, float] | None = None

    def next(self, spread: float, stepped: float) -> float:
        """Return the spread to try after `spread`, from which EM would step to `stepped`."""
        x, h = np.log(spread), np.log(stepped / spread)
        move = h
        if self.before is not None and x != self.before[0]:
            slope = (h - self.before[1]) / (x - self.before[0])
            # Elsewhere than near a fixed point that EM would reach, the secant says nothing.
            move = -h / slope if -1.0 < slope < -1e-3 else h
        self.before = (x, h)
        return float(np.clip(np.exp(x + np.clip(move, -1.0, 1.0)), MIN_PRIOR_SD, MAX_PRIOR_SD))


def _judges(sums: Likelihood, mean: np.ndarray, root_NS: np.ndarray, free: np.ndarray) -> np.ndarray:
    """A Newton step of beta and gamma on the likelihood expected over theta's posterior.

    At a single theta, beta would be biased: worths that are uncertain look spread out, so judges look blunt.
    """
    n, at = sums.layout.num_items, np.flatnonzero(free) + sums.layout.num_items
    step = np.zeros(len(free))
    if not len(at):
        return step
    rng, slope = np.random.default_rng(0), np.zeros(len(mean))
    for z_S in rng.normal(size=(SAMPLES // 2, root_NS.shape[1])):
        for sign in (1.0, -1.0):
            phi = mean.copy()
            phi[:n] += sign * (root_NS @ z_S)
            slope += sums.moments(phi).gradient / SAMPLES
    believed = prior(sums.layout, 1.0)
    slope -= believed.precision * (mean - believed.mean)
    curve = np.stack([sums.product(mean, np.eye(1, len(mean), i)[0])[at] for i in at])
    step[free] = np.linalg.solve(curve + np.diag(believed.precision[at]), slope[at])
    return np.clip(step, -0.5, 0.5)


def _scaled(found: Fit) -> Fit:
    """Theta in nats of the average judge: the mean log sharpness of the judges that say something is 0."""
    said = found.beta_J[found.beta_J > np.maximum(UNSURE * found.beta_error_J, 1e-6)]
    c = float(np.exp(np.log(said).mean()))
    return found._replace(
        theta_N=c * found.theta_N, mode_N=c * found.mode_N, standard_error_N=c * found.standard_error_N,
        root_NS=c * found.root_NS, prior_sd=c * found.prior_sd, beta_J=found.beta_J / c, beta_error_J=found.beta_error_J / c,
    )  # fmt: skip


def maximum(
    sums: Likelihood, counts: Counts, phi: np.ndarray, believed: Prior, tolerance: float
) -> tuple[np.ndarray, float, float, int]:
    """Return the posterior mode, its gradient per window, the log-likelihood and the number of Newton steps."""
    judged = np.concatenate([counts.num_windows_J, np.repeat(counts.num_windows_J, sums.layout.num_places)])
    scale = np.maximum(np.concatenate([counts.num_windows_N, judged]), 1.0)
    held = believed.precision >= FIXED
    phi = np.where(held, believed.mean, phi)
    current = sums.moments(phi)
    for step in range(1, MAX_NEWTON + 1):
        gradient = np.where(held, 0.0, current.gradient - believed.precision * (phi - believed.mean))
        norm = float(np.max(np.abs(gradient) / scale))
        if norm <= tolerance:
            return phi, norm, current.log_likelihood, step
        diagonal = current.diagonal + believed.precision
        size = float(np.sqrt(gradient @ (gradient / diagonal)))
        direction = _solve(sums, phi, gradient, believed, 1e-2 * min(1.0, size), diagonal)
        objective = current.log_likelihood - _distance(phi, believed)
        # At most 5 nats a step: far from the optimum a Newton step can leave the range where exp() is finite.
        slope, length = float(gradient @ direction), min(1.0, 5.0 / float(np.max(np.abs(direction))))
        while True:
            proposal = phi + length * direction
            moved = sums.moments(proposal)
            gain = moved.log_likelihood - _distance(proposal, believed) - objective
            if gain >= 1e-4 * length * slope or length * slope < 1e-10 * abs(objective):
                break
            length *= 0.5
        phi, current = proposal, moved
    raise NotConverged(f"gradient {norm:.2e} per comparison after {MAX_NEWTON} Newton steps, tolerance {tolerance:.0e}")


def _distance(phi: np.ndarray, believed: Prior) -> float:
    away = phi - believed.mean
    return 0.5 * float(away @ (believed.precision * away))


def _solve(
    sums: Likelihood, phi: np.ndarray, right: np.ndarray, believed: Prior, goal: float, diagonal: np.ndarray | None = None,
    guess: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Preconditioned conjugate gradients on (information + prior precision) x = right, to `goal` times right's size."""
    if diagonal is None:
        diagonal = sums.moments(phi).diagonal + believed.precision
    x, residual = np.zeros_like(right), right.copy()
    if guess is not None:
        x = guess.copy()
        residual -= sums.product(phi, x) + believed.precision * x
    z = residual / diagonal
    p, rz = z.copy(), float(residual @ z)
    enough = goal * np.sqrt(float(right @ (right / diagonal)))
    for _ in range(MAX_CONJUGATE):
        if np.sqrt(rz) <= enough:
            break
        hp = sums.product(phi, p) + believed.precision * p
        alpha = rz / float(p @ hp)
        x += alpha * p
        residual -= alpha * hp
        z = residual / diagonal
        rz, before = float(residual @ z), rz
        p = z + (rz / before) * p
    return x


class _Covariance(NamedTuple):
    """A factor (parameters, S) of the posterior covariance and its diagonal, both without the shift of theta that is free."""

    root: np.ndarray
    variance: np.ndarray
    draws: np.ndarray | None = None  # the solved draws behind a sampled one


def _covariance(
    sums: Likelihood, phi: np.ndarray, believed: Prior, n: int, shifts: bool, near: _Covariance | None = None
) -> _Covariance:
    """Return the posterior covariance; `near`: that at parameters close by, where the solution starts.

    Exact: the inverse Cholesky factor. Else 64 draws x with covariance C, solved from draws y = C^-1 x of the information;
    given all others, x_i has variance 1 / d_i and mean x_i - y_i / d_i, so only the small part around 1 / d_i is left to
    chance (Rao-Blackwell: Papandreou & Yuille 2010; Siden et al. 2018).
    """
    size = len(phi)
    if size <= EXACT:
        dense = sums.information(phi)
        dense[np.diag_indices(size)] += believed.precision
        try:
            lower = scipy.linalg.cholesky(dense, lower=True, overwrite_a=True)
        except np.linalg.LinAlgError:
            raise NotConverged(
                "the information matrix is not positive definite; set aggregate.prior_sd to a smaller value"
            ) from None
        root = np.ascontiguousarray(scipy.linalg.solve_triangular(lower, np.eye(size), lower=True, overwrite_b=True).T)
        if shifts:
            root[:n] -= root[:n].mean(0)
        return _Covariance(root, (root**2).sum(1))
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (DRAWS, size))
    drawn = sums.draws(phi) + np.sqrt(believed.precision) * signs
    diagonal = sums.moments(phi).diagonal + believed.precision
    guesses = [None] * DRAWS if near is None or near.draws is None else list(near.draws)
    # A residual of 1 % makes a variance too small by 0.01 %: the error of conjugate gradients is orthogonal to its solution.
    solved = [_solve(sums, phi, y, believed, 1e-2, diagonal, x) for y, x in zip(drawn, guesses, strict=True)]
    root = np.stack(solved, axis=1)
    if shifts:
        root[:n] -= root[:n].mean(0)
    variance = 1 / diagonal + ((root - (drawn / diagonal).T) ** 2).mean(1)
    return _Covariance(root / np.sqrt(DRAWS), variance, np.stack(solved))
