"""Model checks: whether answers that a fit has not seen look as Plackett-Luce says.

A fifth of the windows is held out, log-worths are fitted to the others, and each pair of texts of a held-out window is
predicted under the posterior.

Shapes: N texts, W windows, K texts in a window, J judges, P places, E pairs, S columns of a factor of the covariance, T triads.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.sparse
from scipy.special import expit, log_expit, log_ndtr

from valueflow.config import Config
from valueflow.ranking.likelihood import Layout, LikelihoodShard, Orders
from valueflow.ranking.pairs import Pairs, differences, known, pairs_of, rows, sharpness, split
from valueflow.ranking.plackett_luce import GAMMA_SD, Z95, Fit, NotConverged, fit, maximum, prior

BINS, PAIRS_PER_BIN = 10, 25
MAX_TRIADS, SIMULATIONS = 20_000, 200
CHUNK = 2_000  # pairs looked at together: of each, a row of the factor or of the comparison graph is in memory
SPREADS = (0.5, 1.0, 2.0)
PROBIT = 1.702  # logistic(1.702 x) and the normal distribution function differ by less than 0.01 (Haley 1952)
MAX_STEPS = 2_000  # of L-BFGS
PLACED = ("above", "between", "below")


class Bin(Config):
    """Pairs of like predicted log-odds (their mean, nats): predicted and observed share that the predicted-better text won."""

    pairs: int
    difference: float
    predicted: float
    observed: float
    low: float
    high: float


class Residual(Config):
    """Observed less expected share of wins of a group of pairs, with its 95 % interval."""

    group: str
    pairs: int
    residual: float
    low: float
    high: float


class Triads(Config):
    """Share of triads that are circular, observed and expected; the 95 % interval is that of the model."""

    triads: int
    observed: float
    expected: float
    low: float
    high: float


class JudgeCheck(Config):
    """A judge's mean log score per pair (nats), what the model expects of it, their difference in standard errors; places."""

    judge: int
    windows: int
    score: float
    expected: float
    z: float
    places: list[Residual]


class ModelCheck(Config):
    """A model's mean log score per pair (nats), its difference from Plackett-Luce's and the standard error of that."""

    model: str
    prior_sd: float
    score: float
    difference: float
    error: float


class Checks(Config):
    """All checks of one value; windows and pairs are those held out, lists are empty where there is nothing to check."""

    windows: int
    pairs: int
    link: list[Bin]
    transitivity: Triads | None
    context: list[Residual]
    judges: list[JudgeCheck]
    models: list[ModelCheck]


class Held(NamedTuple):
    """Held-out pairs as predicted: log-odds and probability that the first wins, its slope in theta, number of the texts."""

    pairs: Pairs
    fit: Fit
    logit_E: np.ndarray
    share_E: np.ndarray
    slope_E: np.ndarray
    cluster_E: np.ndarray


def check(orders: list[Orders], layout: Layout, prior_sd: float | None, tolerance: float) -> Checks:
    """Return how held-out answers differ from what the fit to the others predicts; empty if nothing can be held out.

    Intervals and errors allow for answers about the same texts being alike, and for the errors of the fit. They are wide for
    preferences with a probability, which vary less than answers do.

    Args:
        orders: all windows of a value; without `judge_W` they are one judge's.
        layout: the model; judges are told apart where `judge_W` is known, modelled or not.
        prior_sd: as `fit` takes it: nats (of the sharpest judge, where several are modelled), None estimates it.
        tolerance: as `fit` takes it.

    Raises:
        NotConverged: the fit to four fifths of the windows, or that of another model, missed its tolerance.
    """
    orders = [rows(o, o.weight_W > 0) for o in orders]  # of a sure preference, the opposite order has no weight
    held, kept = split(orders, layout.num_items)
    pairs = pairs_of(held, layout.num_items)
    if not len(pairs.first_E) or not any(len(o.items_WK) for o in kept):
        return Checks(windows=0, pairs=0, link=[], transitivity=None, context=[], judges=[], models=[])
    sums = LikelihoodShard(layout.num_items, kept, layout.num_judges, layout.num_places)
    fitted = fit(sums, prior_sd, tolerance)
    seen = _predicted(pairs, fitted)
    return Checks(
        windows=round(sum(float(o.weight_W.sum()) for o in held)),
        pairs=round(float(pairs.weight_E.sum())),
        link=_link(seen),
        transitivity=_transitivity(pairs_of(orders, layout.num_items), fitted),
        context=_context(seen, held),
        judges=_judges(seen, held),
        models=_models(seen, kept, sums, tolerance),
    )


def _predicted(pairs: Pairs, fitted: Fit) -> Held:
    """The pairs with their probabilities under the posterior, the logistic under a normal difference as in MacKay (1992)."""
    chunks = np.split(np.arange(len(pairs.first_E)), range(CHUNK, len(pairs.first_E), CHUNK))
    error_E = np.concatenate([fitted.contrast_errors(pairs.first_E[c], pairs.second_E[c]) for c in chunks])
    shrink_E = 1 / np.sqrt(1 + np.pi * (sharpness(pairs, fitted) * error_E) ** 2 / 8)
    logit_E = shrink_E * differences(pairs, fitted.theta_N, fitted)
    slope_E = shrink_E * expit(logit_E) * expit(-logit_E)
    cluster_E = np.unique(pairs.texts_E, return_inverse=True)[1]
    return Held(pairs, fitted, logit_E, expit(logit_E), slope_E, cluster_E)


def _residual(held: Held, factor_E: np.ndarray) -> tuple[float, float]:
    """The sum over pairs of weight * factor * (1 - probability of what happened), expected to be 0, and its standard error.

    The variance of the answers is that between windows of different texts, and at least that of independent answers: where
    nearly all are as predicted, what is seen says little. Added to it is that of the predictions, by the delta method.
    """
    pairs, fitted = held.pairs, held.fit
    n, (j, p) = len(fitted.theta_N), fitted.gamma_JP.shape
    residual_E = pairs.weight_E * factor_E * expit(-held.logit_E)
    independent = float(pairs.weight_E @ (factor_E**2 * held.share_E * expit(-held.logit_E)))
    answers = max(float((np.bincount(held.cluster_E, residual_E) ** 2).sum()), independent)
    moved_E = pairs.weight_E * factor_E * held.slope_E
    by_theta_E = moved_E * sharpness(pairs, fitted)
    change_N = np.bincount(pairs.first_E, by_theta_E, n) - np.bincount(pairs.second_E, by_theta_E, n)
    predictions = float(((change_N @ fitted.root_NS) ** 2).sum())
    if j:
        by_beta_E = moved_E * (fitted.theta_N[pairs.first_E] - fitted.theta_N[pairs.second_E])
        change_J = np.bincount(pairs.judge_E, by_beta_E, j)
        first_E, second_E = pairs.judge_E * p + pairs.first_place_E, pairs.judge_E * p + pairs.second_place_E
        change_Q = np.bincount(first_E, moved_E, j * p) - np.bincount(second_E, moved_E, j * p)
        predictions += float(((change_J * fitted.beta_error_J) ** 2).sum())
        # Less the variance of the shift that a judge's gammas share: it matters to no order, and only the prior knows of it.
        variance_J = np.maximum((fitted.gamma_error_JP**2).mean(1) - GAMMA_SD**2 / p, 0.0) * p / max(p - 1, 1)
        predictions += float(np.repeat(variance_J, p) @ change_Q**2)
    return float(residual_E.sum()), float(np.sqrt(answers + predictions))


def _group(held: Held, name: str, factor_E: np.ndarray) -> list[Residual]:
    """The mean residual of the pairs whose factor is not 0, if there are any."""
    pairs = float(held.pairs.weight_E[factor_E != 0].sum())
    if not pairs:
        return []
    total, error = _residual(held, factor_E)
    mean, half = total / pairs, Z95 * error / pairs
    return [Residual(group=name, pairs=round(pairs), residual=mean, low=mean - half, high=mean + half)]


def _link(held: Held) -> list[Bin]:
    """Bins of about as many pairs each, by predicted difference; intervals are Wilson's (1927) for as many independent pairs
    as would have the error at hand.
    """
    size_E = np.abs(held.logit_E)
    num_bins = int(np.clip(held.pairs.weight_E.sum() // PAIRS_PER_BIN, 1, BINS))
    edges = np.unique(np.quantile(size_E, np.arange(1, num_bins) / num_bins))
    bin_E, bins = np.searchsorted(edges, size_E, side="right"), []
    for b in range(len(edges) + 1):
        weight_E = held.pairs.weight_E * (bin_E == b)
        pairs = float(weight_E.sum())
        if not pairs:
            continue
        total, error = _residual(held, np.sign(held.logit_E) * (bin_E == b))
        predicted = float(weight_E @ expit(size_E)) / pairs
        observed = float(np.clip(predicted + total / pairs, 0.0, 1.0))
        independent = pairs * float(weight_E @ (expit(size_E) * expit(-size_E))) / error**2 if error else pairs
        low, high = _wilson(observed, independent)
        difference = float(weight_E @ size_E) / pairs
        bins.append(Bin(pairs=round(pairs), difference=difference, predicted=predicted, observed=observed, low=low, high=high))
    return bins


def _wilson(share: float, count: float) -> tuple[float, float]:
    z2 = Z95**2 / max(count, 1e-6)
    middle, half = share + z2 / 2, np.sqrt(z2 * (share * (1 - share) + z2 / 4))
    return float((middle - half) / (1 + z2)), float((middle + half) / (1 + z2))


def _context(held: Held, orders: list[Orders]) -> list[Residual]:
    """Residuals of the predicted-better text by where most of the window's other texts lie: by Luce's axiom it matters not."""
    where_E = [np.empty(0, int)]
    for o in orders:
        theta_WK = held.fit.theta_N[o.items_WK]
        for a, b in known(o):
            high_W, low_W = np.maximum(theta_WK[:, a], theta_WK[:, b]), np.minimum(theta_WK[:, a], theta_WK[:, b])
            others_WK = np.delete(theta_WK, [a, b], axis=1)
            above_W, below_W = (others_WK > high_W[:, None]).sum(1), (others_WK < low_W[:, None]).sum(1)
            counts_WC = np.stack([above_W, others_WK.shape[1] - above_W - below_W, below_W], axis=1)
            most_W = counts_WC.argmax(1)
            where_E.append(np.where(2 * counts_WC.max(1) > others_WK.shape[1], most_W, -1))
    at_E = np.concatenate(where_E)
    better_E = np.sign(held.logit_E)
    return [group for c, name in enumerate(PLACED) for group in _group(held, name, better_E * (at_E == c))]


def _judges(held: Held, orders: list[Orders]) -> list[JudgeCheck]:
    """Each judge's log score against its expectation, and whether the places it was shown texts at win too often."""
    pairs, found = held.pairs, []
    log_E, other_E = log_expit(held.logit_E), log_expit(-held.logit_E)
    expected_E = held.share_E * log_E + expit(-held.logit_E) * other_E
    for judge in np.unique(pairs.judge_E).tolist():
        mine_E = pairs.judge_E == judge
        weight_E = pairs.weight_E * mine_E
        total, error = _residual(held, (log_E - other_E) * mine_E)
        shown = np.union1d(pairs.first_place_E[mine_E], pairs.second_place_E[mine_E])
        won_by_place = {
            p: mine_E * (1.0 * (pairs.first_place_E == p) - (pairs.second_place_E == p)) for p in shown[shown >= 0].tolist()
        }
        windows = sum(float(o.weight_W[(0 if o.judge_W is None else o.judge_W) == judge].sum()) for o in orders)
        found.append(
            JudgeCheck(
                judge=judge, windows=round(windows), score=float(weight_E @ log_E / weight_E.sum()),
                expected=float(weight_E @ expected_E / weight_E.sum()), z=total / error if error else 0.0,
                places=[r for p, factor_E in won_by_place.items() for r in _group(held, str(p + 1), factor_E)],
            )
        )  # fmt: skip
    return found


def _models(held: Held, kept: list[Orders], sums: LikelihoodShard, tolerance: float) -> list[ModelCheck]:
    """Held-out log scores of Plackett-Luce, of Bradley-Terry (1952; a window's pairs as if each had been asked alone) and of
    Thurstone's (1927) case V (normal instead of logistic, on pairs), all at the mode.

    Each has the spread of its prior, of three, with the best held-out score: half, once and twice the given one, for Thurstone
    divided by 1.702, since its unit is about so many nats. Judges are held at what the fit found.
    """
    pairs, fitted = pairs_of(kept, sums.layout.num_items), held.fit
    scores = {"plackett-luce": _best(held, lambda spread: _logistic(held, sums, spread, tolerance))}
    if all(o.items_WK.shape[1] == 2 for o in kept):
        scores["bradley-terry"] = scores["plackett-luce"]  # the same model
    else:
        items_E2, places_E2 = np.stack(pairs[:2], axis=1), np.stack(pairs[5:], axis=1)
        alone = LikelihoodShard(
            sums.layout.num_items, [Orders(items_E2, pairs.weight_E, places_E2, pairs.judge_E)], *sums.layout[1:]
        )
        scores["bradley-terry"] = _best(held, lambda spread: _logistic(held, alone, spread, tolerance))
    scores["thurstone"] = _best(held, lambda spread: _normal(held, pairs, spread))
    weight_E, found = held.pairs.weight_E, []
    for model, (spread, score_E) in scores.items():
        less_E = score_E - scores["plackett-luce"][1]
        difference = float(np.average(less_E, weights=weight_E))
        error = np.sqrt((np.bincount(held.cluster_E, weight_E * (less_E - difference)) ** 2).sum()) / weight_E.sum()
        sd = spread * fitted.prior_sd / (PROBIT if model == "thurstone" else 1.0)
        score = float(np.average(score_E, weights=weight_E))
        found.append(ModelCheck(model=model, prior_sd=sd, score=score, difference=difference, error=float(error)))
    return found


def _best(held: Held, scores: Callable[[float], np.ndarray]) -> tuple[float, np.ndarray]:
    """The spread with the best mean score, and the scores with it."""
    return max(((s, scores(s)) for s in SPREADS), key=lambda found: float(held.pairs.weight_E @ found[1]))


def _logistic(held: Held, sums: LikelihoodShard, spread: float, tolerance: float) -> np.ndarray:
    """Log scores under the mode of Plackett-Luce."""
    fitted = held.fit
    effects = np.concatenate([fitted.beta_J, fitted.gamma_JP.ravel()])
    believed, start = prior(sums.layout, spread * fitted.prior_sd, effects), np.concatenate([fitted.mode_N, effects])
    phi = maximum(sums, sums.counts(), start, believed, tolerance)[0]
    return log_expit(differences(held.pairs, phi[: len(fitted.mode_N)], fitted))


def _normal(held: Held, pairs: Pairs, spread: float) -> np.ndarray:
    """Log scores under the mode of Thurstone's case V, found by L-BFGS; units of theta are standard deviations of a
    difference.
    """
    fitted, n, sd = held.fit, len(held.fit.mode_N), spread * held.fit.prior_sd / PROBIT
    sharpness_E = sharpness(pairs, fitted)

    def objective(theta_N: np.ndarray) -> tuple[float, np.ndarray]:
        x_E = differences(pairs, theta_N, fitted, PROBIT)
        log_E = log_ndtr(x_E)
        # The inverse Mills ratio, in logs, which do not underflow.
        slope_E = pairs.weight_E * sharpness_E * np.exp(-0.5 * (x_E**2 + np.log(2 * np.pi)) - log_E)
        gradient_N = np.bincount(pairs.first_E, slope_E, n) - np.bincount(pairs.second_E, slope_E, n)
        return theta_N @ theta_N / (2 * sd**2) - pairs.weight_E @ log_E, theta_N / sd**2 - gradient_N

    options = {"maxiter": MAX_STEPS, "maxfun": 2 * MAX_STEPS, "ftol": 1e-11, "gtol": 1e-3}
    found = scipy.optimize.minimize(objective, fitted.mode_N / PROBIT, jac=True, method="L-BFGS-B", options=options)
    if not found.success:
        raise NotConverged(f"Thurstone's model, fitted to compare: {found.message}")
    return log_ndtr(differences(held.pairs, found.x, fitted, PROBIT))


def _transitivity(pairs: Pairs, fitted: Fit) -> Triads | None:
    """Circular share of triads against what the model's answers to the same windows would show; None without triads.

    Triads are of all windows, since the three pairs of one are seldom all held out; one theta per text cannot learn a circle.
    A pair is decided by the majority of the windows of one set of texts that it was in, and the pairs of a triad by different
    windows: within one, orders are transitive. The interval is of answers simulated under the posterior.
    """
    n = len(fitted.theta_N)
    lower_E, upper_E = np.minimum(pairs.first_E, pairs.second_E), np.maximum(pairs.first_E, pairs.second_E)
    pair_E = lower_E * n + upper_E
    # Of several windows the one with the smallest hash: any choice by the outcome, also by the places in the order, would bias.
    by_texts = np.lexsort((pairs.texts_E, pair_E))
    pair_D, first_D = np.unique(pair_E[by_texts], return_index=True)
    at_D, number_E = by_texts[first_D], np.searchsorted(pair_D, pair_E)
    counted_E = pairs.texts_E == pairs.texts_E[at_D][number_E]
    signed_E = np.where(pairs.first_E == lower_E, pairs.weight_E, -pairs.weight_E)
    won_D = _majority(np.bincount(number_E, signed_E * counted_E, len(at_D)))
    decided_D = np.flatnonzero(won_D)
    triads_T3 = decided_D[_triads(pair_D[decided_D], pairs.texts_E[at_D][decided_D], n)]
    if not len(triads_T3):
        return None
    counted_E &= np.isin(number_E, triads_T3)
    asked, signed_E, number_E = Pairs(*(column[counted_E] for column in pairs)), signed_E[counted_E], number_E[counted_E]
    rng, shares = np.random.default_rng(0), []
    for _ in range(SIMULATIONS):
        theta_N = fitted.theta_N + fitted.root_NS @ rng.normal(size=fitted.root_NS.shape[1])
        as_seen_E = rng.random(len(number_E)) < expit(differences(asked, theta_N, fitted))
        simulated_D = np.bincount(number_E, np.where(as_seen_E, signed_E, -signed_E), len(at_D))
        shares.append(_circular(_majority(simulated_D)[triads_T3]))
    if np.isnan(shares).all():
        return None
    low, high = np.nanquantile(shares, [0.025, 0.975]).tolist()
    return Triads(
        triads=len(triads_T3), observed=_circular(won_D[triads_T3]), expected=float(np.nanmean(shares)), low=low, high=high
    )


def _triads(pair_D: np.ndarray, texts_D: np.ndarray, n: int) -> np.ndarray:
    """Triads a < b < c as numbers of their pairs ab, bc, ac (T, 3), no two from one window; a sample if there are many.

    Args:
        pair_D: lower text * n + upper text of each pair, ascending.
        texts_D: the texts of the windows that decided it.
        n: number of texts.
    """
    rng = np.random.default_rng(0)
    lower_D, upper_D = np.divmod(pair_D, n)
    met_NN = scipy.sparse.csr_matrix((np.ones(len(pair_D), bool), (lower_D, upper_D)), (n, n))
    met_NN += met_NN.T
    order_D, parts, count = rng.permutation(len(pair_D)), [np.empty((0, 3), int)], 0
    for start in range(0, len(pair_D), CHUNK):
        one, two = lower_D[order_D[start : start + CHUNK]], upper_D[order_D[start : start + CHUNK]]
        row, third = met_NN[one].multiply(met_NN[two]).nonzero()
        a, b, c = np.sort(np.stack([one[row], two[row], third], axis=1), axis=1).T
        pairs_T3 = np.searchsorted(pair_D, np.stack([a * n + b, b * n + c, a * n + c], axis=1))
        ab, bc, ac = texts_D[pairs_T3].T
        parts.append(pairs_T3[(ab != bc) & (bc != ac) & (ab != ac)])
        count += len(parts[-1])
        if count >= 3 * MAX_TRIADS:  # a triad is found once for each of its pairs
            break
    found_T3 = np.unique(np.concatenate(parts), axis=0)
    return found_T3 if len(found_T3) <= MAX_TRIADS else found_T3[rng.choice(len(found_T3), MAX_TRIADS, replace=False)]


def _majority(margin_D: np.ndarray) -> np.ndarray:
    """1 where the lower-numbered text of a pair won, -1 where the other did, 0 where they tied."""
    return np.where(np.abs(margin_D) > 1e-9, np.sign(margin_D), 0.0)


def _circular(won_T3: np.ndarray) -> float:
    """Share of the decided triads in which a beats b, b beats c and c beats a, or the other way round."""
    decided_T = (won_T3 != 0).all(1)
    ab, bc, ac = won_T3[decided_T].T
    return float(np.mean((ab == bc) & (bc == -ac))) if decided_T.any() else np.nan
