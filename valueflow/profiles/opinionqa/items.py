"""Items of OpinionQA in the public format of Modular Pluralism, and the damage in it.

A JSON list of objects with question (with its options and letters), options, attribute (`RELIG_Hindu`) and gold_distribution.
An item is a question and a group. An option that no group chose is a sign of damage: its text was split at a comma, or kept
stray quotes, so its answers were not counted, and the rest was scaled to sum to 1. Such questions are listed and left out of
the headline.
"""

import json
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from valueflow import store
from valueflow.errors import InputError
from valueflow.records import clean, digest

NEAR_TIE = 0.02  # margin of the gold mode
Damage = Literal["split", "quoted", "other", "one option"]
_QUOTES = "'\""


class Item(NamedTuple):
    """How a group answers a question.

    Attributes:
        item_id: hash of question and group.
        question_id: hash of the wording and the options.
        wording: the question without its options.
        options: texts of the options, in the order of the letters.
        attribute: what divides people into groups, such as RELIG.
        group: such as Hindu.
        gold: share of the group that chose each option.
    """

    item_id: str
    question_id: str
    wording: str
    options: tuple[str, ...]
    attribute: str
    group: str
    gold: tuple[float, ...]

    @property
    def mode(self) -> int:
        """The option that most chose."""
        return int(np.argmax(self.gold))

    @property
    def is_near_tie(self) -> bool:
        """Whether the two most frequent options differ by less than NEAR_TIE."""
        first, second = (*sorted(self.gold, reverse=True), 0.0)[:2]
        return first - second < NEAR_TIE


class Items(NamedTuple):
    """The items of a file, each once; questions with damage, by id; ids of items that were there twice."""

    items: list[Item]
    damaged: dict[str, Damage]
    duplicates: list[str]

    @property
    def clean(self) -> list[Item]:
        """The items of questions without damage."""
        return [item for item in self.items if item.question_id not in self.damaged]


def read_items(url: str) -> Items:
    """Return the items of a file.

    Raises:
        InputError: the file is missing or is no such list; the message names the entry.
    """
    try:
        entries = json.loads(store.read_input(url))
    except FileNotFoundError:
        raise InputError(f"file {url!r} does not exist") from None
    except ValueError as error:
        raise InputError(f"{url} is not JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{url} is no list of items of OpinionQA")
    items: dict[str, Item] = {}
    duplicates = []
    for number, entry in enumerate(entries, 1):
        item = _item(entry, f"{url}, entry {number}")
        if item.item_id in items:
            duplicates.append(item.item_id)
        else:
            items[item.item_id] = item
    kept = list(items.values())
    return Items(kept, damage(kept), duplicates)


def _item(entry: object, where: str) -> Item:
    try:
        assert isinstance(entry, dict)
        options = tuple(clean(option) for option in entry["options"])
        gold = tuple(float(share) for share in entry["gold_distribution"])
        attribute, _, group = str(entry["attribute"]).partition("_")
        wording = clean(str(entry["question"]).partition("\nOptions:")[0].removeprefix("Question:"))
    except (AssertionError, KeyError, TypeError, ValueError, AttributeError) as error:
        fields = "question, options, attribute and gold_distribution"
        raise InputError(f"{where} is no item of OpinionQA: it needs {fields} ({type(error).__name__}: {error})") from error
    if not wording or not group or len(gold) != len(options) or not options:
        raise InputError(f"{where}: {len(options)} options and {len(gold)} shares of group {group!r}; give a share per option")
    if not all(math.isfinite(share) and share >= 0 for share in gold) or abs(sum(gold) - 1) > 0.01:
        raise InputError(f"{where}: gold_distribution {list(gold)} is not a distribution: shares from 0 that sum to 1")
    question_id = digest("question", wording, options)
    return Item(digest(question_id, attribute, group), question_id, wording, options, attribute, group, gold)


def by_question(items: Sequence[Item]) -> dict[str, list[Item]]:
    """Return the items of each question."""
    questions: dict[str, list[Item]] = {}
    for item in items:
        questions.setdefault(item.question_id, []).append(item)
    return questions


def damage(items: Sequence[Item]) -> dict[str, Damage]:
    """Return the questions with damage and its kind; an option without answers in every group is damage."""
    damaged: dict[str, Damage] = {}
    for question_id, of_question in by_question(items).items():
        options = of_question[0].options
        if len(options) == 1:
            damaged[question_id] = "one option"
            continue
        empty = np.flatnonzero(np.sum([item.gold for item in of_question], 0) == 0)
        if len(empty):
            damaged[question_id] = _kind(options, set(empty.tolist()))
    return damaged


def _kind(options: tuple[str, ...], empty: set[int]) -> Damage:
    if any(options[i][:1] in _QUOTES or options[i][-1:] in _QUOTES for i in empty):
        return "quoted"
    # What followed a comma begins with a small letter, as the letters around the comma are lost.
    if any(i + 1 in empty and options[i + 1][:1].islower() for i in empty):
        return "split"
    return "other"
