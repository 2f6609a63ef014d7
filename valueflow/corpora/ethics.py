"""ETHICS (Hendrycks et al. 2021): everyday conduct that shows a trait (virtue), and claims that are just or not (justice).

Conduct that is wrong or not (commonsense) is read for who names the values that wrong conduct opposes.
"""

import functools
import itertools
import re
from importlib import resources
from typing import Any

import yaml

from valueflow.corpora import items
from valueflow.corpora.items import Adapter, Item, Label
from valueflow.errors import InputError
from valueflow.tabular import cell, columns, rows

LABEL, SCENARIO, SEPARATOR, CONDUCT = "label", "scenario", "[SEP]", "input"
# Right and wrong, and good and bad excuses, without a word on the value at stake.
OTHER_PARTS = {CONDUCT: "commonsense", "excuse": "deontology"}
# What a justice text claims is said by the first of these words: that its speaker deserves something, that something is due to
# the speaker, or that there was reason to treat somebody otherwise than usual.
CLAIM = re.compile(
    r"\b(?:(?P<deserved>deserv|merit)|(?P<due>justified|entitled)|(?P<same>usual|normal|typical|used to|always))", re.IGNORECASE
)
FAIRNESS = {"deserved": "mft:proportionality", "due": "mft:justice", "same": "mft:justice"}
OPENING = 6  # words: texts that open alike are one author's variations on a theme
SENTENCE = 60  # words
HEAD = 100  # rows that show what kind of file it is
TRAITS = "ethics_traits.yaml"


def adapter(files: list[str], values: list[str]) -> Adapter:
    """Return how to read virtue and justice files, or with `values` commonsense files: wrong conduct opposes those values.

    Raises:
        InputError: another part of ETHICS, another file, or an unknown value.
    """
    if values:
        return Adapter(functools.partial(_conduct, values=[items.value(name) for name in values]), [LABEL, CONDUCT])
    traits()
    for file in files:
        _check(file)
    return Adapter(_item, [LABEL, SCENARIO])


@functools.cache
def traits() -> dict[str, tuple[Label, ...]]:
    """Return what each trait says about values; InputError where the file names an unknown value or a trait twice."""
    text = resources.files("valueflow.corpora").joinpath(TRAITS).read_text("utf-8")
    found: dict[str, tuple[Label, ...]] = {}
    for names, listed in yaml.safe_load(text).items():
        labels = tuple(_label(entry) for entry in listed)
        for name in names.split(", "):
            if name in found:
                raise InputError(f"valueflow/corpora/{TRAITS} has the trait {name!r} twice; delete one of them")
            found[name] = labels
    return found


def _label(entry: str) -> Label:
    name, _, sign = entry.rpartition(":")
    return Label(items.value(name), items.direction(sign))


def _check(file: str) -> None:
    there = columns(file)
    for column, part in OTHER_PARTS.items():
        if column in there:
            raise InputError(
                f"{file} is ETHICS' {part}, whose labels name no value; format 'ethics' reads virtue and justice, and "
                "commonsense where `values` names those that wrong conduct opposes"
            )
    if SCENARIO not in there:
        return  # refused with the other missing columns
    head = [cell(row.fields, SCENARIO) for row in itertools.islice(rows(file, [SCENARIO]), HEAD) if not row.error]
    known = sum(SEPARATOR in scenario or bool(CLAIM.search(scenario)) for scenario in head)
    if 2 * known < len(head):
        raise InputError(
            f"{file} is neither ETHICS' virtue ('TEXT {SEPARATOR} trait') nor its justice ('I deserve …', 'I usually …'): "
            f"{known} of its first {len(head)} scenarios read like one of them"
        )


def _item(fields: dict[str, Any]) -> Item:
    mark = cell(fields, LABEL).strip()
    if mark not in ("0", "1"):
        raise InputError(f"label {mark!r} is not 0 or 1")
    scenario = cell(fields, SCENARIO)
    shown, separator, trait = scenario.rpartition(SEPARATOR)
    text, labels = (shown, _virtue(trait, mark)) if separator else (scenario, _justice(scenario, mark))
    return Item(text, labels, " ".join(re.findall(r"\w+", text.lower())[:OPENING]))


def _conduct(fields: dict[str, Any], values: list[str]) -> Item:
    """What somebody did, in a sentence; longer stories are left out: they turn on who was right, not on what was done."""
    mark, text = cell(fields, LABEL).strip(), cell(fields, CONDUCT)
    if mark not in ("0", "1"):
        raise InputError(f"label {mark!r} is not 0 or 1")
    if len(text.split()) > SENTENCE:
        raise InputError(f"text is a story of {len(text.split())} words, more than {SENTENCE}")
    labels = [Label(value, -1 if mark == "1" else 1) for value in values]
    return Item(text, labels, " ".join(re.findall(r"\w+", text.lower())[:OPENING]))


def _virtue(trait: str, mark: str) -> list[Label]:
    """What the trait says; a trait that a text does not show says nothing: its opposite need not be shown either."""
    if mark == "0":
        raise InputError("label 0: the text does not show the trait, which says nothing about a value")
    name = trait.strip(" .:").lower()
    if name not in traits():
        raise InputError(f"trait {name!r} stands for no value; valueflow/corpora/{TRAITS} has those that do")
    return list(traits()[name])


def _justice(scenario: str, mark: str) -> list[Label]:
    claim = CLAIM.search(scenario)
    if not (claim and claim.lastgroup):
        raise InputError("scenario claims neither that something is deserved or due nor that an exception was right")
    direction = 1 if mark == "1" else -1
    return [Label("duty:justice", direction), Label(FAIRNESS[claim.lastgroup], direction)]
