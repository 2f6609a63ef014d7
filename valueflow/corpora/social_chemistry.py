"""Social Chemistry 101: rules of thumb about situations, labelled with moral foundations."""

import functools
from typing import Any, Literal

from valueflow.corpora import items
from valueflow.corpora.items import Adapter, Item, Label
from valueflow.errors import InputError
from valueflow.tabular import cell, number

FOUNDATIONS, JUDGMENT = "rot-moral-foundations", "action-moral-judgment"
MAX_JUDGMENT = 2


def adapter(text: Literal["situation", "rot", "action"]) -> Adapter:
    """Return the adapter that takes the texts from the column `text`."""
    judgment = [JUDGMENT] if text == "action" else []
    required = list(dict.fromkeys([text, "situation", "rot-id", FOUNDATIONS, *judgment]))
    return Adapter(functools.partial(_item, text=text), required, source_id="rot-id")


def _item(fields: dict[str, Any], text: str) -> Item:
    names = [name.strip() for name in cell(fields, FOUNDATIONS).split("|")]
    towards = _direction(fields, text)
    labels = [Label(items.value(name, "mft"), towards) for name in names if name not in ("", "null")]
    return Item(cell(fields, text), labels, cell(fields, "situation"))


def _direction(fields: dict[str, Any], text: str) -> int | None:
    """1 for a rule of thumb (it upholds its foundations); the sign of the judgment (-2 to 2) for an action; else None."""
    if text == "rot":
        return 1
    judgment = cell(fields, JUDGMENT) if text == "action" else ""
    if not judgment:
        return None
    degree = number(judgment)
    if degree is None or abs(degree) > MAX_JUDGMENT:
        raise InputError(f"{JUDGMENT!r} is {judgment!r}, not a number from -{MAX_JUDGMENT} to {MAX_JUDGMENT}")
    return (degree > 0) - (degree < 0)
