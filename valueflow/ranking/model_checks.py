"""Model checks: how well Plackett-Luce predicts answers that its fit has not seen.

A fifth of the windows is held out, log-worths are fitted to the others, and each pair of texts of a held-out window is
predicted under the posterior.

Shapes: N texts, W windows, K texts in a window, E pairs.
"""

import numpy as np
from scipy.special import expit, log_expit

from valueflow.config import Config
from valueflow.numerics.intervals import wilson_interval
from valueflow.ranking.held_out import HeldOutPairs, Residual, mean_residual, predict, total_residual
from valueflow.ranking.likelihood import Layout, LikelihoodShard
from valueflow.ranking.model_comparison import ModelCheck, compare_models
from valueflow.ranking.orders import Orders
from valueflow.ranking.pairs import ordered_ranks, pairs_of, select, split
from valueflow.ranking.plackett_luce import fit
from valueflow.ranking.transitivity import Triads, transitivity

BINS, PAIRS_PER_BIN = 10, 25
CONTEXTS = ("above", "between", "below")  # where most of a window's other texts lie


class Bin(Config):
    """Pairs of similar predicted log-odds: their mean (nats), and the predicted and observed share won by the favourite."""

    pairs: int
    difference: float
    predicted: float
    observed: float
    low: float
    high: float


class JudgeCheck(Config):
    """A judge's mean log score per pair (nats), its expectation, their difference in standard errors, and position bias."""

    judge: int
    windows: int
    score: float
    expected: float
    z: float
    places: list[Residual]


class Checks(Config):
    """All checks of one value; `windows` and `pairs` are held out, and lists are empty where there is nothing to check."""

    windows: int
    pairs: int
    link: list[Bin]
    transitivity: Triads | None
    context: list[Residual]
    judges: list[JudgeCheck]
    models: list[ModelCheck]


def check(orders: list[Orders], layout: Layout, prior_sd: float | None, tolerance: float) -> Checks:
    """Return how held-out answers differ from the prediction of a fit to the others; empty if nothing can be held out.

    Intervals and errors allow for similar answers about the same texts and for the errors of the fit. They are wide for
    preferences with a probability, which vary less than answers do.

    Args:
        orders: all windows of a value; without `judge_W` they belong to one judge.
        layout: the model; judges are distinguished if `judge_W` is known, modelled or not.
        prior_sd: as in `fit`: nats (of the sharpest judge, if several are modelled), None estimates it.
        tolerance: as in `fit`.

    Raises:
        NotConverged: the fit to four fifths of the windows, or that of another model, missed its tolerance.
    """
    orders = [select(o, o.weight_W > 0) for o in orders]  # the reverse of a certain preference has weight 0
    held_out, training = split(orders, layout.num_items)
    pairs = pairs_of(held_out, layout.num_items)
    if not len(pairs.first_E) or not any(len(o.items_WK) for o in training):
        return Checks(windows=0, pairs=0, link=[], transitivity=None, context=[], judges=[], models=[])
    likelihood = LikelihoodShard(layout.num_items, training, layout.num_judges, layout.num_positions)
    fitted = fit(likelihood, prior_sd, tolerance)
    predicted = predict(pairs, fitted)
    return Checks(
        windows=round(sum(float(o.weight_W.sum()) for o in held_out)),
        pairs=round(float(pairs.weight_E.sum())),
        link=_link(predicted),
        transitivity=transitivity(pairs_of(orders, layout.num_items), fitted),
        context=_context(predicted, held_out),
        judges=_judges(predicted, held_out),
        models=compare_models(predicted, training, likelihood, tolerance),
    )


def _link(held_out: HeldOutPairs) -> list[Bin]:
    """Return bins of similar size by predicted difference.

    Intervals are Wilson's, for the number of independent pairs that would have the same standard error.
    """
    size_E = np.abs(held_out.logit_E)
    num_bins = int(np.clip(held_out.pairs.weight_E.sum() // PAIRS_PER_BIN, 1, BINS))
    edges = np.unique(np.quantile(size_E, np.arange(1, num_bins) / num_bins))
    bin_E, bins = np.searchsorted(edges, size_E, side="right"), []
    for b in range(len(edges) + 1):
        weight_E = held_out.pairs.weight_E * (bin_E == b)
        pairs = float(weight_E.sum())
        if not pairs:
            continue
        total, error = total_residual(held_out, np.sign(held_out.logit_E) * (bin_E == b))
        predicted = float(weight_E @ expit(size_E)) / pairs
        observed = float(np.clip(predicted + total / pairs, 0.0, 1.0))
        independent = pairs * float(weight_E @ (expit(size_E) * expit(-size_E))) / error**2 if error else pairs
        low, high = wilson_interval(observed, max(independent, 1e-6))
        difference = float(weight_E @ size_E) / pairs
        bins.append(Bin(pairs=round(pairs), difference=difference, predicted=predicted, observed=observed, low=low, high=high))
    return bins


def _context(held_out: HeldOutPairs, orders: list[Orders]) -> list[Residual]:
    """Return residuals of the favourite by where most of the window's other texts lie; Luce's axiom says it does not matter."""
    parts = [np.empty(0, int)]
    for o in orders:
        theta_WK = held_out.fit.theta_N[o.items_WK]
        for a, b in ordered_ranks(o):
            high_W, low_W = np.maximum(theta_WK[:, a], theta_WK[:, b]), np.minimum(theta_WK[:, a], theta_WK[:, b])
            others_WK = np.delete(theta_WK, [a, b], axis=1)
            above_W, below_W = (others_WK > high_W[:, None]).sum(1), (others_WK < low_W[:, None]).sum(1)
            counts_WC = np.stack([above_W, others_WK.shape[1] - above_W - below_W, below_W], axis=1)
            has_majority_W = 2 * counts_WC.max(1) > others_WK.shape[1]
            parts.append(np.where(has_majority_W, counts_WC.argmax(1), -1))
    context_E = np.concatenate(parts)
    favourite_E = np.sign(held_out.logit_E)
    return [r for c, name in enumerate(CONTEXTS) for r in mean_residual(held_out, name, favourite_E * (context_E == c))]


def _judges(held_out: HeldOutPairs, orders: list[Orders]) -> list[JudgeCheck]:
    """Return each judge's log score against its expectation, and the residual of each position in which it was shown texts."""
    pairs, checks = held_out.pairs, []
    log_E, other_log_E = log_expit(held_out.logit_E), log_expit(-held_out.logit_E)
    expected_E = held_out.probability_E * log_E + expit(-held_out.logit_E) * other_log_E
    for judge in np.unique(pairs.judge_E).tolist():
        is_judge_E = pairs.judge_E == judge
        weight_E = pairs.weight_E * is_judge_E
        total, error = total_residual(held_out, (log_E - other_log_E) * is_judge_E)
        positions = np.union1d(pairs.first_position_E[is_judge_E], pairs.second_position_E[is_judge_E])
        wins_by_position = {
            p: is_judge_E * (1.0 * (pairs.first_position_E == p) - (pairs.second_position_E == p))
            for p in positions[positions >= 0].tolist()
        }
        windows = sum(float(o.weight_W[(0 if o.judge_W is None else o.judge_W) == judge].sum()) for o in orders)
        checks.append(
            JudgeCheck(
                judge=judge, windows=round(windows), score=float(weight_E @ log_E / weight_E.sum()),
                expected=float(weight_E @ expected_E / weight_E.sum()), z=total / error if error else 0.0,
                places=[r for p, factor_E in wins_by_position.items() for r in mean_residual(held_out, str(p + 1), factor_E)],
            )
        )  # fmt: skip
    return checks
