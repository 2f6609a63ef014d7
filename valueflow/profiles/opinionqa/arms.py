"""What a model is told of a group before it answers: the arms of the comparison, and their controls."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from valueflow.errors import InputError
from valueflow.profiles.opinionqa.items import Item
from valueflow.records import digest

Arm = Literal[
    "default", "label", "profile", "label + profile", "adaptive", "shuffled profile", "population profile", "irrelevant text"
]
ARMS: tuple[Arm, ...] = get_args(Arm)
POPULATION = "population"
LABELS = {
    "CREGION": "a person who lives in the {} of the United States", "EDUCATION": "a person with this education: {}",
    "INCOME": "a person with this yearly household income: {}", "POLIDEOLOGY": "a person whose political views are {}",
    "POLPARTY": "a person who is a {}", "RACE": "a person whose race is {}", "RELIG": "a person of this religion: {}",
    "SEX": "a person whose sex is {}",
}  # fmt: skip
# Sentences that say nothing about values, for a text of the length of a profile.
IRRELEVANT = (
    "The shed behind the station is painted green.", "Trains to the coast leave from the second platform.",
    "A ruler has thirty centimetres on one side and twelve inches on the other.", "The kettle holds a litre and a half.",
    "There are two windows on the north side of the house.", "The bus stop was moved a few metres last spring.",
    "Paper comes in packs of five hundred sheets.", "The river is wider below the mill.",
)  # fmt: skip


def statement(item: Item, option: int) -> str:
    """Return what a person who chose an option says: the text whose intensities make the profile of a group."""
    return f"{item.wording} {item.options[option]}"


def shuffled(groups: Sequence[str], seed: int) -> dict[str, str]:
    """Return for each group another one whose profile it gets; each profile is used once.

    Raises:
        InputError: there is one group, so there is no other profile.
    """
    names = sorted(groups)
    if len(names) < 2:
        raise InputError(f"there is one group ({', '.join(names)}), so no other profile can be shuffled in; leave the arm out")
    order = np.random.default_rng(int(digest("shuffled", seed), 16)).permutation(len(names))
    return {names[order[i]]: names[order[(i + 1) % len(order)]] for i in range(len(order))}


def preamble(
    arm: Arm, item: Item, profiles: Mapping[str, str], other: Mapping[str, str], relevance: float = 1.0, threshold: float = 0.0
) -> str:
    """Return what comes before the question; "" for the arm default.

    Args:
        arm: of the comparison.
        item: whose group is described.
        profiles: text of each group's profile (`attribute_group`), and of the population.
        other: group whose profile replaces the group's own in the arm shuffled.
        relevance: of the question to the theories, for the arm adaptive.
        threshold: below which adaptive says nothing; tuned on the validation side.
    """
    group = f"{item.attribute}_{item.group}"
    label = f"You are {LABELS.get(item.attribute, 'a person of this group: {}').format(item.group)}."
    match arm:
        case "default":
            return ""
        case "label":
            return label
        case "profile":
            return profiles[group]
        case "label + profile":
            return f"{label} {profiles[group]}"
        case "adaptive":
            return profiles[group] if relevance >= threshold else ""
        case "shuffled profile":
            return profiles[other[group]]
        case "population profile":
            return profiles[POPULATION]
        case "irrelevant text":
            return irrelevant(len(profiles[group]))


def irrelevant(length: int) -> str:
    """Return sentences about nothing of at least this many characters, cut at it."""
    text = ""
    while len(text) < length:
        text += IRRELEVANT[len(text) // 40 % len(IRRELEVANT)] + " "
    return text[:length].strip()


def letter_echoes(profile: str, items: Sequence[Item]) -> list[str]:
    """Return the options of test items that a profile repeats word by word: an echo is a leak."""
    return sorted(
        {option for item in items for option in item.options if len(option) > 25 and option.lower() in profile.lower()}
    )
