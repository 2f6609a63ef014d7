"""The personas by which a model is steered: one text for each value, level and variant, from `wording.yaml`."""

import functools
from importlib import resources
from typing import NamedTuple

import yaml
from pydantic import Field, ValidationError, model_validator

from valueflow.config import Config
from valueflow.errors import InputError
from valueflow.records import ValueId, digest
from valueflow.theories import operational

FILE = "wording.yaml"
# -2 opposes the value openly and accepts a cost, -1 doubts it and usually decides otherwise, 1 leans towards it where that
# costs little, 2 puts it first at a cost and urges others. 0 is the neutral persona.
LEVELS = (-2, -1, 1, 2)
VARIANTS = 3  # of a level; the last one does not name the value


class Wording(NamedTuple):
    """One text that tells a model how it stands towards a value."""

    value: ValueId
    level: int
    variant: int
    named: bool
    text: str


class ValueTexts(Config):
    """All texts of one value."""

    name: str = Field(description="the word for the value in its texts")
    texts: dict[int, list[str]] = Field(description="by level the variants; the last one does not name the value")

    @model_validator(mode="after")
    def _complete(self) -> "ValueTexts":
        counts = {level: len(texts) for level, texts in self.texts.items()}
        if counts != dict.fromkeys(LEVELS, VARIANTS):
            raise ValueError(f"{self.name!r} has {counts} texts by level; it needs {VARIANTS} of each of the levels {LEVELS}")
        return self


class WordingTable(Config):
    """The file of all wordings."""

    neutral: list[str] = Field(min_length=2, description="personas that say nothing about values")
    irrelevant: list[str] = Field(min_length=2, description="facts from which irrelevant personas are put together")
    values: dict[str, ValueTexts]

    @model_validator(mode="after")
    def _all_values(self) -> "WordingTable":
        if different := set(self.values) ^ set(operational()):
            raise ValueError(f"these are not both operational values and worded: {', '.join(sorted(different))}")
        return self

    def wordings(self, value: ValueId, level: int) -> list[Wording]:
        """Return the variants of a level, the one without the value's name last."""
        texts = self.values[value].texts[level]
        return [Wording(value, level, variant, variant < VARIANTS - 1, text) for variant, text in enumerate(texts)]


@functools.cache
def _content() -> str:
    return resources.files("valueflow.steering").joinpath(FILE).read_text("utf-8")


@functools.cache
def wording_table() -> WordingTable:
    """Return the table of all wordings.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return WordingTable.model_validate(yaml.safe_load(_content()))
    except (yaml.YAMLError, ValidationError) as error:
        raise InputError(f"valueflow/steering/{FILE}: {error}") from error


def wordings(value: ValueId, level: int) -> list[Wording]:
    """Return the variants of a value at a level: paraphrases with the value's name, then one without it.

    Raises:
        InputError: there is no wording of the value, or no such level.
    """
    if value not in wording_table().values:
        raise InputError(f"{value} has no wording: it is not one of the values that models are steered on; "
                         f"these are {', '.join(operational())}")  # fmt: skip
    check_level(level)
    return wording_table().wordings(value, level)


def check_level(level: int) -> None:
    """Check that there is wording for a level.

    Raises:
        InputError: there is none.
    """
    if level not in LEVELS:
        hint = "; level 0 is the neutral persona, which is the same for all values" if level == 0 else ""
        raise InputError(f"unknown level {level}; allowed: {', '.join(map(str, LEVELS))}{hint}")


def neutral_personas() -> list[str]:
    """Return personas that say nothing about values."""
    return list(wording_table().neutral)


def irrelevant_persona(length: int) -> str:
    """Return a persona of facts that say nothing about values, with the number of words that is nearest to `length`.

    Raises:
        InputError: the length is below 1, or above that of all facts together.
    """
    facts_by_length: dict[int, tuple[str, ...]] = {0: ()}
    for fact in wording_table().irrelevant:
        for words, facts in list(facts_by_length.items()):
            facts_by_length.setdefault(words + len(fact.split()), (*facts, fact))
    longest = max(facts_by_length)
    if not 1 <= length <= longest:
        raise InputError(f"an irrelevant persona of {length} words is not possible; the length may be 1 to {longest}")
    del facts_by_length[0]
    return " ".join(facts_by_length[min(facts_by_length, key=lambda words: abs(words - length))])


@functools.cache
def wording_hash() -> str:
    """Return the hash of the whole file, which changes with any text in it."""
    return digest(_content())
