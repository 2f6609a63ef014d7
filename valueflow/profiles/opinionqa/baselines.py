"""Predictions without a model: what every table shows beside the arms."""

from collections.abc import Sequence

import numpy as np

from valueflow.profiles.opinionqa.batteries import similarity
from valueflow.profiles.opinionqa.items import Item, by_question
from valueflow.profiles.opinionqa.ordinal import ranks


def uniform_accuracy(items: Sequence[Item]) -> float:
    """Return the expected accuracy of a guess."""
    return float(np.mean([1 / len(item.options) for item in items]))


def constant(items: Sequence[Item], letter: int) -> list[np.ndarray]:
    """Return predictions of one letter; the last where an item has fewer options."""
    return [np.eye(len(item.options))[min(letter, len(item.options) - 1)] for item in items]


def best_constant(profile: Sequence[Item]) -> int:
    """Return the letter that is most often the mode on the profile side."""
    return int(np.bincount([item.mode for item in profile]).argmax())


def leave_one_group_out(items: Sequence[Item]) -> list[np.ndarray | None]:
    """Return the mean answers of the other groups to the same question; an oracle, since no profile may know them.

    None where a question has one group.
    """
    questions = by_question(items)
    found: list[np.ndarray | None] = []
    for item in items:
        others = [other.gold for other in questions[item.question_id] if other.item_id != item.item_id]
        found.append(np.mean(others, 0) if others else None)
    return found


def groups_disagree(items: Sequence[Item]) -> np.ndarray:
    """Return whether the groups of an item's question have different modes (N,)."""
    modes = {question: {item.mode for item in of} for question, of in by_question(items).items()}
    return np.array([len(modes[item.question_id]) > 1 for item in items])


def nearest_questions(items: Sequence[Item], profile: Sequence[Item], neighbors: int = 5) -> list[np.ndarray]:
    """Return the group's answers to the nearest questions of the profile side with as many options; uniform without one.

    Ordered options are matched by rank, others by letter. Similarity is that of the words; no model is asked.
    """
    wordings = list(dict.fromkeys([item.wording for item in (*items, *profile)]))
    alike, row = similarity(wordings), {wording: i for i, wording in enumerate(wordings)}
    of_group: dict[tuple[str, str, int], list[Item]] = {}
    for item in profile:
        of_group.setdefault((item.attribute, item.group, len(item.options)), []).append(item)
    predicted = []
    for item in items:
        candidates = of_group.get((item.attribute, item.group, len(item.options)), [])
        candidates = sorted(candidates, key=lambda other: -alike[row[item.wording], row[other.wording]])[:neighbors]
        total = np.full(len(item.options), 1e-6)
        for other in candidates:
            weight = float(alike[row[item.wording], row[other.wording]]) + 1e-3
            total += weight * _aligned(other, item)
        predicted.append(total / total.sum())
    return predicted


def _aligned(other: Item, item: Item) -> np.ndarray:
    """The answers to another question in the order of this one's options."""
    gold, own, theirs = np.array(other.gold), ranks(item.options), ranks(other.options)
    return gold[np.argsort(theirs)][own] if own and theirs else gold
