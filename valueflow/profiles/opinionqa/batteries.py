"""Batteries of questions: near-twins stand together, on one side of a split, so that no profile knows the question it predicts.

Near-twins are questions whose wordings share most of their words (Jaccard 0.6). A battery is a set that near-twins connect.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.sparse.csgraph import connected_components

from valueflow.errors import InputError
from valueflow.profiles.opinionqa.items import Item, by_question
from valueflow.records import digest

NEAR_TWIN = 0.6
Side = Literal["profile", "validation", "test"]
SIDES: tuple[Side, ...] = ("profile", "validation", "test")
_WORD = re.compile(r"[a-z']+")


class Leak(NamedTuple):
    """A question of the test side and what makes the profile side know it."""

    test: str
    profile: str
    reason: str


def similarity(wordings: Sequence[str]) -> np.ndarray:
    """Return the Jaccard similarity of the words of every two wordings, 0 on the diagonal."""
    words = [set(_WORD.findall(wording.lower())) for wording in wordings]
    column = {word: i for i, word in enumerate(sorted(set().union(*words)))}
    has = np.zeros((len(words), max(len(column), 1)), np.float32)
    for row, own in enumerate(words):
        has[row, [column[word] for word in own]] = 1
    both, size = has @ has.T, has.sum(1)
    alike: np.ndarray = both / np.maximum(size[:, None] + size - both, 1)
    np.fill_diagonal(alike, 0)
    return alike


def batteries(items: Sequence[Item]) -> dict[str, str]:
    """Return the battery of each question: the hash of its questions."""
    questions = by_question(items)
    ids = list(questions)
    alike = similarity([of[0].wording for of in questions.values()])
    _, code = connected_components(alike >= NEAR_TWIN)
    members: dict[int, list[str]] = {}
    for question, number in zip(ids, code.tolist(), strict=True):
        members.setdefault(number, []).append(question)
    names = {number: digest("battery", sorted(of)) for number, of in members.items()}
    return {question: names[number] for question, number in zip(ids, code.tolist(), strict=True)}


def split(battery_of: Mapping[str, str], seed: int, shares: tuple[float, float, float] = (0.5, 0.15, 0.35)) -> dict[str, Side]:
    """Return the side of each question; a battery is on one side.

    Args:
        battery_of: battery by question.
        seed: of the split.
        shares: of the batteries on the sides profile, validation and test.
    """
    ends = np.cumsum(shares) / sum(shares)
    place = {battery: int(digest("side", seed, battery), 16) / 16**16 for battery in set(battery_of.values())}
    return {q: SIDES[min(int(np.searchsorted(ends, place[b], "right")), 2)] for q, b in battery_of.items()}


def leaks(items: Sequence[Item], side_of: Mapping[str, Side], aliases: Iterable[frozenset[str]] = ()) -> list[Leak]:
    """Return what lets a profile know answers of the test side: a shared question, a near-twin, a group by another name.

    Args:
        items: of both sides; a question that stands on both is named by the items that say so.
        side_of: side by question or, where it differs, by item.
        aliases: sets of groups (`attribute_group`) that are the same people by other names.
    """
    profile = [item for item in items if side_of.get(item.item_id, side_of[item.question_id]) == "profile"]
    test = [item for item in items if side_of.get(item.item_id, side_of[item.question_id]) == "test"]
    found = [
        Leak(t, t, "the question is on both sides")
        for t in sorted({item.question_id for item in test} & {item.question_id for item in profile})
    ]
    questions = by_question([*profile, *test])
    ids = list(questions)
    of_test, of_profile = ({item.question_id for item in side} for side in (test, profile))
    alike = similarity([questions[q][0].wording for q in ids])
    for i, j in zip(*np.nonzero(alike >= NEAR_TWIN), strict=True):
        if ids[i] in of_test and ids[j] in of_profile and ids[i] != ids[j]:
            found.append(Leak(ids[i], ids[j], f"near-twins: they share {alike[i, j]:.0%} of their words"))
    same = {name: alias for alias in aliases for name in alias}
    by_alias: dict[tuple[str, frozenset[str]], set[str]] = {}
    for item in items:
        name = f"{item.attribute}_{item.group}"
        if name in same:
            by_alias.setdefault((item.question_id, same[name]), set()).add(name)
    for (question, _), names in sorted(by_alias.items(), key=lambda entry: entry[0][0]):
        if len(names) > 1:
            found.append(Leak(question, question, f"one group by {len(names)} names: {', '.join(sorted(names))}"))
    return found


def check_no_leak(items: Sequence[Item], side_of: Mapping[str, Side], aliases: Iterable[frozenset[str]] = ()) -> None:
    """Raise InputError with the first leak of a split."""
    found = leaks(items, side_of, aliases)
    if found:
        raise InputError(
            f"the split leaks in {len(found)} places; the first: question {found[0].test}, {found[0].reason}; split by "
            "battery, and name a group once"
        )
