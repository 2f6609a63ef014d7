"""Scores of a questionnaire from the shares of its options: scales, acquiescence, effects of the order of the options.

Ratings run from 1, the first option, to K. A rating r of a reversed item (key -1) becomes K + 1 - r before its scale is scored.
Items are the sample: intervals say how far a scale would move with other items of its kind, as far as its items differ.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t

from valueflow.choices.questions import Answered
from valueflow.choices.study import Row
from valueflow.questionnaires.items import Item


class ItemAnswer(NamedTuple):
    """The answer to an item over its paraphrases.

    Attributes:
        rating: mean expected rating, 1 to K; nan where no reply names an option.
        inconsistent: share of the paraphrases whose two orders choose different options; nan if none has both.
        unread: replies that name no option.
        replies: replies in all.
    """

    rating: float
    inconsistent: float
    unread: int
    replies: int


def item_answer(answers: Sequence[Answered], options: int) -> ItemAnswer:
    """Return the answer to an item from those to its paraphrases."""
    steps = np.arange(1, options + 1)
    ratings = [float(answer.share_O @ steps) for answer in answers if answer.share_O is not None]
    orders = [not answer.consistent for answer in answers if answer.consistent is not None]
    return ItemAnswer(
        float(np.mean(ratings)) if ratings else float("nan"), float(np.mean(orders)) if orders else float("nan"),
        sum(answer.unread for answer in answers), 2 * len(answers),
    )  # fmt: skip


def scale_rows(items: Sequence[Item], answers: Mapping[str, ItemAnswer], options: int) -> list[Row]:
    """Return a row a scale: its mean with a 95 % interval over items, and centred on the mean of all items.

    Centred scores take away how high a model rates everything (MRAT); correlations and comparisons of profiles use them.
    """
    keyed = {item.item_id: keyed_rating(item, answers[item.item_id].rating, options) for item in items}
    overall = float(np.nanmean(list(keyed.values()))) if np.isfinite(list(keyed.values())).any() else float("nan")
    rows = []
    for scale in dict.fromkeys(item.scale for item in items):
        ratings = np.array([keyed[item.item_id] for item in items if item.scale == scale])
        mean, low, high = mean_interval(ratings)
        low, high = max(low, 1.0), min(high, float(options))
        rows.append({"scale": scale, "mean": mean, "low": low, "high": high, "centred": mean - overall, **_counts(ratings)})
    return rows


def keyed_rating(item: Item, rating: float, options: int) -> float:
    """Return a rating in the direction of the item's scale."""
    return rating if item.key > 0 else options + 1 - rating


def acquiescence(items: Sequence[Item], answers: Mapping[str, ItemAnswer], options: int) -> float:
    """Return how far a model agrees whatever an item says: points above the middle of the options.

    Of each scale with items of both keys, the mean of the mean ratings of either key before reversal: who affirms both poles
    agrees with everything. nan where no scale has both.
    """
    of_scales = []
    for scale in dict.fromkeys(item.scale for item in items):
        poles = []
        for key in (1, -1):
            ratings = np.array([answers[i.item_id].rating for i in items if i.scale == scale and i.key == key])
            if np.isfinite(ratings).any():
                poles.append(float(np.nanmean(ratings)))
        if len(poles) == 2:
            of_scales.append(float(np.mean(poles)) - (options + 1) / 2)
    return float(np.mean(of_scales)) if of_scales else float("nan")


def check_row(items: Sequence[Item], answers: Mapping[str, ItemAnswer], options: int) -> Row:
    """Return what says how far the answers can be trusted: acquiescence, consistency over both orders, unread replies."""
    of = [answers[item.item_id] for item in items]
    known = [answer.inconsistent for answer in of if np.isfinite(answer.inconsistent)]
    return {
        "acquiescence": acquiescence(items, answers, options),
        "inconsistent": float(np.mean(known)) if known else float("nan"),
        "unread": sum(answer.unread for answer in of) / sum(answer.replies for answer in of),
    }


def effect_rows(
    items: Sequence[Item], answers: Mapping[str, ItemAnswer], neutral: Mapping[str, ItemAnswer], options: int
) -> list[Row]:  # fmt: skip
    """Return a row a scale: the mean difference from the neutral persona, paired by item, with a 95 % interval."""
    rows = []
    for scale in dict.fromkeys(item.scale for item in items):
        differences = np.array([
            keyed_rating(i, answers[i.item_id].rating, options) - keyed_rating(i, neutral[i.item_id].rating, options)
            for i in items if i.scale == scale
        ])  # fmt: skip
        mean, low, high = mean_interval(differences)
        rows.append({"scale": scale, "effect": mean, "low": low, "high": high, **_counts(differences)})
    return rows


def mean_interval(x_N: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of the finite numbers and its 95 % interval by Student's t; nan where one number has no spread."""
    known = x_N[np.isfinite(x_N)]
    if not len(known):
        return (float("nan"),) * 3
    mean = float(known.mean())
    if len(known) < 2:
        return mean, float("nan"), float("nan")
    half = float(t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known)))
    return mean, mean - half, mean + half


def _counts(x_N: np.ndarray) -> Row:
    return {"items": len(x_N), "answered": int(np.isfinite(x_N).sum())}
