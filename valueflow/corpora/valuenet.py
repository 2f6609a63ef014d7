"""ValueNet: scenarios "[VALUE] text" for the ten Schwartz values, labelled -1, 0 or 1."""

import re
from typing import Any

from valueflow.corpora import items
from valueflow.corpora.items import Adapter, Item, Label
from valueflow.errors import InputError
from valueflow.tabular import cell

SCENARIO = re.compile(r"\s*\[([^\]]+)\](.*)", re.DOTALL)


def adapter() -> Adapter:
    """Return the adapter of the corpus."""
    return Adapter(_item, ["scenario", "label"])


def _item(fields: dict[str, Any]) -> Item:
    scenario = SCENARIO.fullmatch(cell(fields, "scenario"))
    if not scenario:
        raise InputError("scenario does not start with a value in brackets, as in '[POWER] text'")
    name, text = scenario.groups()
    return Item(text, [Label(items.value(name, "svt"), items.direction(cell(fields, "label")))])
