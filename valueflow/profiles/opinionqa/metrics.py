"""How well predicted answers of groups fit theirs, with intervals over batteries.

Shapes: N items, O options of an item; predictions are lists of arrays (O,), one per item.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from valueflow.profiles.opinionqa.items import Item
from valueflow.profiles.opinionqa.ordinal import ranks

DRAWS = 2000
Distributions = Sequence[np.ndarray]


class Measured(NamedTuple):
    """A number with its 95 % interval by a bootstrap of whole batteries."""

    estimate: float
    low: float
    high: float


class Measures(NamedTuple):
    """How an arm predicts: shares from 0 to 1, divergences in bits, distances from 0 to 1.

    Attributes:
        accuracy: items whose likeliest predicted option is the mode of the group.
        clear_accuracy: the same without near-ties.
        agreement: mean share of the group that chose the predicted option.
        ceiling: mean share of the mode, the highest that agreement can be.
        jsd: mean Jensen-Shannon divergence.
        distance: mean distance: earth mover's over the ranks of ordered options, total variation of others.
        contrast: correlation over items and options of (predicted - predicted without the group) with (answers - their mean
            over groups): the only number that a profile alone can earn.
        brier: mean squared error of the option probabilities.
        macro: mean over attributes of their accuracy.
        worst: lowest accuracy of a group, and its name.
        unread: share of items without a prediction, which count as wrong.
    """

    accuracy: Measured
    clear_accuracy: float
    agreement: Measured
    ceiling: float
    jsd: Measured
    distance: float
    contrast: Measured
    brier: float
    macro: float
    worst: tuple[str, float]
    unread: float


def measures(
    items: Sequence[Item], predicted: Sequence[np.ndarray | None], without_group: Distributions, battery_of: Mapping[str, str],
    seed: int = 0,
) -> Measures:  # fmt: skip
    """Return the measures of an arm.

    Args:
        items: of the test side.
        predicted: probability of each option; None: no prediction, which is wrong and has the uniform distribution.
        without_group: the prediction that knows no group, from which contrasts are taken.
        battery_of: battery by question.
        seed: of the bootstrap.
    """
    filled = [np.full(len(i.options), 1 / len(i.options)) if p is None else p for i, p in zip(items, predicted, strict=True)]
    right = np.array([p is not None and int(p.argmax()) == i.mode for i, p in zip(items, predicted, strict=True)], float)
    share = np.array([0.0 if p is None else i.gold[int(p.argmax())] for i, p in zip(items, predicted, strict=True)])
    divergence = np.array([jsd(p, np.array(i.gold)) for i, p in zip(items, filled, strict=True)])
    clear = np.array([not item.is_near_tie for item in items])
    groups = {name: right[[g == name for g in map(_group, items)]].mean() for name in sorted(set(map(_group, items)))}
    attributes = sorted({item.attribute for item in items})
    by_attribute = [right[[item.attribute == a for item in items]].mean() for a in attributes]
    worst = min(groups, key=lambda name: groups[name])
    weights_DN = battery_draws(items, battery_of, seed)
    return Measures(
        mean_over(right, weights_DN), float(right[clear].mean()) if clear.any() else float("nan"), mean_over(share, weights_DN),
        float(np.mean([max(item.gold) for item in items])), mean_over(divergence, weights_DN),
        float(np.mean([distance(p, i) for i, p in zip(items, filled, strict=True)])),
        contrast(items, filled, without_group, weights_DN),
        float(np.mean([((p - np.array(i.gold)) ** 2).sum() for i, p in zip(items, filled, strict=True)])),
        float(np.mean(by_attribute)), (worst, float(groups[worst])), float(np.mean([p is None for p in predicted])),
    )  # fmt: skip


class Paired(NamedTuple):
    """A mean difference with its 95 % interval and two-sided p value by a bootstrap of whole batteries."""

    estimate: float
    low: float
    high: float
    p: float


def paired(
    first_N: np.ndarray, second_N: np.ndarray, items: Sequence[Item], battery_of: Mapping[str, str], seed: int = 0
) -> Paired:
    """Return the mean difference of two arms on the same items."""
    difference_N = np.asarray(first_N, float) - np.asarray(second_N, float)
    weights_DN = battery_draws(items, battery_of, seed)
    draws = weights_DN @ difference_N / weights_DN.sum(1)
    p = min(1.0, 2 * (1 + min((draws <= 0).sum(), (draws >= 0).sum())) / (1 + len(draws)))
    return Paired(*_measured(float(difference_N.mean()), draws), p)


def mean_over(x_N: np.ndarray, weights_DN: np.ndarray) -> Measured:
    """Return a mean with the percentile interval of weighted draws."""
    return _measured(float(x_N.mean()), weights_DN @ x_N / weights_DN.sum(1))


def jsd(p_O: np.ndarray, q_O: np.ndarray) -> float:
    """Return the Jensen-Shannon divergence of two distributions, bits."""
    middle_O = (p_O + q_O) / 2

    def relative(x_O: np.ndarray) -> float:
        some = x_O > 0
        return float((x_O[some] * np.log2(x_O[some] / middle_O[some])).sum())

    return (relative(p_O) + relative(q_O)) / 2


def distance(p_O: np.ndarray, item: Item) -> float:
    """Return the earth mover's distance over the ranks of ordered options, scaled to 1; the total variation of others."""
    difference_O, rank_O = p_O - np.array(item.gold), ranks(item.options)
    if rank_O is None:
        return float(np.abs(difference_O).sum() / 2)
    return float(np.abs(np.cumsum(difference_O[np.argsort(rank_O)]))[:-1].sum() / (len(rank_O) - 1))


def contrast(items: Sequence[Item], predicted: Distributions, without_group: Distributions, weights_DN: np.ndarray) -> Measured:
    """Return the correlation of predicted with true differences of a group from the population.

    The population of a question is the mean of the groups of its items; a question with one group tells nothing.
    """
    population = _population(items)
    pairs = [
        (n, p - w, np.array(item.gold) - population[item.question_id])
        for n, (item, p, w) in enumerate(zip(items, predicted, without_group, strict=True))
        if item.question_id in population
    ]
    if not pairs:
        return Measured(*[float("nan")] * 3)
    at = np.concatenate([np.full(len(x), n) for n, x, _ in pairs])
    x, y = (np.concatenate([pair[column] for pair in pairs]) for column in (1, 2))
    if not x.any() or not y.any():
        return Measured(0.0, 0.0, 0.0)
    xx, yy, xy = (np.bincount(at, product, len(items)) for product in (x * x, y * y, x * y))

    def correlation(weight_N: np.ndarray) -> np.ndarray:  # contrasts have mean 0 within every item
        scale = np.sqrt((weight_N @ xx) * (weight_N @ yy))
        return np.divide(weight_N @ xy, scale, out=np.zeros_like(scale), where=scale > 0)

    return _measured(float(correlation(np.ones((1, len(items))))[0]), correlation(weights_DN))


def _population(items: Sequence[Item]) -> dict[str, np.ndarray]:
    gold: dict[str, list[tuple[float, ...]]] = {}
    for item in items:
        gold.setdefault(item.question_id, []).append(item.gold)
    return {question: np.mean(of, axis=0) for question, of in gold.items() if len(of) > 1}


def reliability_curve(items: Sequence[Item], predicted: Distributions, bins: int = 10) -> list[tuple[float, float, int]]:
    """Return by bin of predicted probability: its mean, the mean share of the groups that chose such options, their number."""
    p = np.concatenate(list(predicted))
    gold = np.concatenate([np.array(item.gold) for item in items])
    number = np.minimum((p * bins).astype(int), bins - 1)
    return [
        (float(p[number == b].mean()), float(gold[number == b].mean()), int((number == b).sum()))
        for b in range(bins)
        if (number == b).any()
    ]


def _group(item: Item) -> str:
    return f"{item.attribute}_{item.group}"


def battery_draws(items: Sequence[Item], battery_of: Mapping[str, str], seed: int) -> np.ndarray:
    """Return how often each item is in each draw of whole batteries (D, N)."""
    battery_N = np.unique([battery_of[item.question_id] for item in items], return_inverse=True)[1]
    number = int(battery_N.max()) + 1
    counts = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), DRAWS)
    return counts[:, battery_N].astype(float)


def _measured(estimate: float, draws: np.ndarray) -> Measured:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Measured(estimate, float(low), float(high))
