"""A user's own file: `columns` says which of its columns hold the text, the label and where it comes from."""

import functools
from typing import Any, Literal

from valueflow.corpora import items
from valueflow.corpora.items import Adapter, Item, Label
from valueflow.errors import InputError
from valueflow.tabular import cell

Name = Literal["text", "theory", "value", "direction", "source_id", "group", "license", "language"]


def adapter(columns: dict[Name, str]) -> Adapter:
    """Return how to read a file whose columns are named by the values of `columns`."""
    return Adapter(functools.partial(_item, columns=columns), list(columns.values()), source_id=columns.get("source_id", ""))


def _item(fields: dict[str, Any], columns: dict[Name, str]) -> Item:
    given: dict[str, str] = {name: cell(fields, column) for name, column in columns.items()}
    name, theory = given.get("value", "").strip(), given.get("theory", "").strip()
    towards = items.direction(given.get("direction", ""))
    if not name and (theory or towards is not None):
        raise InputError("row has a theory or a direction but no value")
    labels = [Label(items.value(name, theory or None), towards)] if name else []
    return Item(given["text"], labels, given.get("group", ""), given.get("language", ""), given.get("license", ""))
