"""ETHICS (Hendrycks et al. 2021): conduct that exemplifies a trait (virtue) and claims that are just or not (justice).

Commonsense rows are used only if `values` is set; wrong conduct then opposes them.
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
from valueflow.records import ValueId
from valueflow.tabular import cell, columns, row_error, rows

LABEL, SCENARIO, SEPARATOR, CONDUCT = "label", "scenario", "[SEP]", "input"
# Parts whose labels are right or wrong, and do not name the value at stake.
OTHER_PARTS = {CONDUCT: "commonsense", "excuse": "deontology"}
# The first match classifies a justice text: its speaker deserves something, something is due to the speaker, or an exception to
# the usual treatment was justified.
CLAIM = re.compile(
    r"\b(?:(?P<deserved>deserv|merit)|(?P<due>justified|entitled)|(?P<same>usual|normal|typical|used to|always))", re.IGNORECASE
)
JUSTICE = ValueId("duty:justice")
FAIRNESS = {
    "deserved": ValueId("mft:proportionality"),
    "due": ValueId("mft:justice"),
    "same": ValueId("mft:justice"),
}
OPENING = 6  # words; texts that begin with the same words are variations of one scenario and form a group
SENTENCE = 60  # words; a longer commonsense text is a story
HEAD = 100  # rows by which the kind of file is recognized
TRAITS = "ethics_traits.yaml"


def adapter(files: list[str], values: list[str]) -> Adapter:
    """Return the adapter of virtue and justice files; with `values`, of commonsense files, whose wrong conduct opposes them.

    Raises:
        InputError: a file is another part of ETHICS or no ETHICS file, or a value is unknown.
    """
    if values:
        return Adapter(functools.partial(_conduct, values=[items.value(name) for name in values]), [LABEL, CONDUCT])
    traits()
    for file in files:
        _check(file)
    return Adapter(_item, [LABEL, SCENARIO])


@functools.cache
def traits() -> dict[str, tuple[Label, ...]]:
    """Return the labels of each trait.

    Raises:
        InputError: the traits file names an unknown value, or a trait twice.
    """
    text = resources.files("valueflow.corpora").joinpath(TRAITS).read_text("utf-8")
    by_trait: dict[str, tuple[Label, ...]] = {}
    for names, entries in yaml.safe_load(text).items():
        labels = tuple(_label(entry) for entry in entries)
        for name in names.split(", "):
            if name in by_trait:
                raise InputError(f"valueflow/corpora/{TRAITS} has the trait {name!r} twice; delete one of them")
            by_trait[name] = labels
    return by_trait


def _label(entry: str) -> Label:
    name, _, sign = entry.rpartition(":")
    return Label(items.value(name), items.direction(sign))


def _check(file: str) -> None:
    existing = columns(file)
    for column, part in OTHER_PARTS.items():
        if column in existing:
            raise InputError(
                f"{file} is ETHICS' {part}, whose labels name no value; format 'ethics' reads virtue and justice, and "
                "commonsense if `values` names the values that wrong conduct opposes"
            )
    if SCENARIO not in existing:
        return  # reported with the other missing columns
    head = [
        cell(row.fields, SCENARIO) for row in itertools.islice(rows(file, [SCENARIO]), HEAD) if not row_error(row, [SCENARIO])
    ]
    recognized = sum(SEPARATOR in scenario or bool(CLAIM.search(scenario)) for scenario in head)
    if 2 * recognized < len(head):
        raise InputError(
            f"{file} is neither ETHICS' virtue ('TEXT {SEPARATOR} trait') nor its justice ('I deserve …', 'I usually …'): "
            f"{recognized} of its first {len(head)} scenarios have either form"
        )


def _item(fields: dict[str, Any]) -> Item:
    mark = _mark(fields)
    scenario = cell(fields, SCENARIO)
    conduct, separator, trait = scenario.rpartition(SEPARATOR)
    text, labels = (conduct, _virtue(trait, mark)) if separator else (scenario, _justice(scenario, mark))
    return Item(text, labels, _opening(text))


def _conduct(fields: dict[str, Any], values: list[ValueId]) -> Item:
    """One act in a sentence; longer stories are rejected, since they are about who was right and not about the act."""
    mark, text = _mark(fields), cell(fields, CONDUCT)
    if len(text.split()) > SENTENCE:
        raise InputError(f"text is a story of {len(text.split())} words, more than {SENTENCE}")
    labels = [Label(value, -1 if mark == "1" else 1) for value in values]
    return Item(text, labels, _opening(text))


def _mark(fields: dict[str, Any]) -> str:
    mark = cell(fields, LABEL).strip()
    if mark not in ("0", "1"):
        raise InputError(f"label {mark!r} is not 0 or 1")
    return mark


def _opening(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower())[:OPENING])


def _virtue(trait: str, mark: str) -> list[Label]:
    """The labels of the trait; a text that does not show a trait (label 0) need not show its opposite, so it is rejected."""
    if mark == "0":
        raise InputError("label 0: the text does not show the trait, so it has no label of a value")
    name = trait.strip(" .:").lower()
    if name not in traits():
        raise InputError(f"trait {name!r} maps to no value; valueflow/corpora/{TRAITS} lists the traits that do")
    return list(traits()[name])


def _justice(scenario: str, mark: str) -> list[Label]:
    claim = CLAIM.search(scenario)
    if not (claim and claim.lastgroup):
        raise InputError("scenario does not claim that something is deserved or due, or that an exception was justified")
    direction = 1 if mark == "1" else -1
    return [Label(JUSTICE, direction), Label(FAIRNESS[claim.lastgroup], direction)]
