"""A user's own file: the setting `columns` maps ValueFlow's column names to those of the file."""

import functools
from typing import Any, Literal

from valueflow.corpora import items
from valueflow.corpora.items import Adapter, Item, Label
from valueflow.errors import InputError
from valueflow.tabular import cell

Name = Literal["text", "theory", "value", "direction", "source_id", "group", "license", "language"]


def adapter(columns: dict[Name, str]) -> Adapter:
    """Return the adapter of a file with this mapping of ValueFlow's column names to its own."""
    return Adapter(functools.partial(_item, columns=columns), list(columns.values()), source_id=columns.get("source_id", ""))


def _item(fields: dict[str, Any], columns: dict[Name, str]) -> Item:
    row: dict[str, str] = {name: cell(fields, column) for name, column in columns.items()}
    name, theory = row.get("value", "").strip(), row.get("theory", "").strip()
    towards = items.direction(row.get("direction", ""))
    if not name and (theory or towards is not None):
        raise InputError("row has a theory or a direction but no value")
    labels = [Label(items.value(name, theory or None), towards)] if name else []
    return Item(row["text"], labels, row.get("group", ""), row.get("language", ""), row.get("license", ""))
