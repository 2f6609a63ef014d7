"""ValuePrism: situations, each with a value, right or duty (a free phrase) that is relevant to it."""

import re
from typing import Any

from valueflow import theories
from valueflow.corpora.items import Adapter, Item, Label
from valueflow.errors import InputError, allowed
from valueflow.records import ValueId
from valueflow.tabular import cell

THEORIES = {"Value": ("svt", "mft"), "Right": ("right",), "Duty": ("duty",)}
VALENCES = {"Supports": 1, "Opposes": -1, "Either": 0, "": None}
PREFIX = re.compile(r"\s*(the\s+)?(duty|right)\s+(to|of)\s+((an?|the)\s+)?", re.IGNORECASE)


def adapter() -> Adapter:
    """Return the adapter of the corpus."""
    return Adapter(_item, ["situation", "vrd", "text"], ("valence",))


def _item(fields: dict[str, Any]) -> Item:
    value = _value(cell(fields, "text"), _choice(fields, "vrd", THEORIES))
    towards = _choice(fields, "valence", VALENCES)
    situation = cell(fields, "situation")
    return Item(situation, [Label(value, towards)] if value else [], situation)


def _choice(fields: dict[str, Any], name: str, choices: dict[str, Any]) -> Any:
    word = cell(fields, name).strip()
    if word not in choices:
        raise InputError(f"unknown {name} {word!r}; {allowed(word, filter(None, choices))}")
    return choices[word]


def _value(phrase: str, theory_ids: tuple[str, ...]) -> ValueId | None:
    """The value with this spelling; None for most phrases, which are free text ("Duty to tell your sister")."""
    for theory_id in theory_ids:
        spellings = theories.theories()[theory_id].spellings
        for name in (phrase, PREFIX.sub("", phrase, count=1)):
            if theories.fold(name) in spellings:
                return ValueId.of(theory_id, spellings[theories.fold(name)])
    return None
