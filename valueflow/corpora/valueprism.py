"""ValuePrism: situations with a value, right or duty (a free phrase) that bears on them."""

import re
from typing import Any

from valueflow import theories
from valueflow.corpora.items import Adapter, Item, Label
from valueflow.errors import InputError, allowed
from valueflow.tabular import cell

THEORIES = {"Value": ("svt", "mft"), "Right": ("right",), "Duty": ("duty",)}
VALENCES = {"Supports": 1, "Opposes": -1, "Either": 0, "": None}
PREFIX = re.compile(r"\s*(the\s+)?(duty|right)\s+(to|of)\s+((an?|the)\s+)?", re.IGNORECASE)


def adapter() -> Adapter:
    """Return how to read the corpus."""
    return Adapter(_item, ["situation", "vrd", "text"], ("valence",))


def _item(fields: dict[str, Any]) -> Item:
    found = _value(cell(fields, "text"), _choice(fields, "vrd", THEORIES))
    towards = _choice(fields, "valence", VALENCES)
    situation = cell(fields, "situation")
    return Item(situation, [Label(found, towards)] if found else [], situation)


def _choice(fields: dict[str, Any], name: str, choices: dict[str, Any]) -> Any:
    word = cell(fields, name).strip()
    if word not in choices:
        raise InputError(f"unknown {name} {word!r}; {allowed(word, filter(None, choices))}")
    return choices[word]


def _value(phrase: str, theory_ids: tuple[str, ...]) -> str:
    """The value with this spelling, "" for none: most phrases are free text ("Duty to tell your sister")."""
    for theory_id in theory_ids:
        spellings = theories.theories()[theory_id].spellings
        for name in (phrase, PREFIX.sub("", phrase, count=1)):
            if theories.fold(name) in spellings:
                return f"{theory_id}:{spellings[theories.fold(name)]}"
    return ""
