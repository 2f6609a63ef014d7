"""FULCRA: dialogues (JSON lines) with Schwartz values such as "universalism: -1"."""

from typing import Any

from valueflow.corpora import items
from valueflow.corpora.items import Adapter, Item, Label
from valueflow.errors import InputError
from valueflow.tabular import cell


def adapter() -> Adapter:
    """Return the adapter of the corpus."""
    return Adapter(_item, ["dialogue", "value_types"])


def _item(fields: dict[str, Any]) -> Item:
    types = fields.get("value_types") or []
    if not isinstance(types, list):
        raise InputError("'value_types' is not a list")
    dialogue = cell(fields, "dialogue")
    return Item(dialogue, [_label(entry) for entry in types], dialogue.partition("\nBob:")[0])


def _label(entry: Any) -> Label:
    name, colon, sign = str(entry).partition(":")
    if not colon or not sign.strip():
        raise InputError(f"value type {entry!r} is not of the form 'name: +1'")
    return Label(items.value(name, "svt"), items.direction(sign))
