"""Touché23-ValueEval: arguments (TSV) and, in a second TSV, 20 Schwartz categories each."""

import functools
from typing import Any

from valueflow.corpora import items
from valueflow.corpora.items import Adapter, Item, Label
from valueflow.errors import InputError
from valueflow.records import ValueId
from valueflow.tabular import cell, columns, require, row_error, rows, urls

ID = "Argument ID"
# Schwartz's refined theory has 19 values; objectivity was added by the corpus' authors.
OBJECTIVITY = {"Universalism: objectivity": ValueId("svt:universalism")}


def adapter(labels: str) -> Adapter:
    """Return the adapter of an arguments file with the labels file(s) at `labels`; "" for texts without labels."""
    item = functools.partial(_item, marks=_marks(labels), file=labels) if labels else _text
    return Adapter(item, [ID, "Conclusion", "Premise"], source_id=ID, quoted=False)


def _text(fields: dict[str, Any]) -> Item:
    return Item(cell(fields, "Premise"), [], cell(fields, "Conclusion"))


def _item(fields: dict[str, Any], marks: dict[str, dict[str, str]], file: str) -> Item:
    argument = cell(fields, ID)
    if argument not in marks:
        raise InputError(f"argument {argument!r} has no well-formed row in {file}")
    for category, mark in marks[argument].items():
        if mark != "1":
            raise InputError(f"{category!r} is {mark!r} in {file}, not 0 or 1")
    return _text(fields)._replace(labels=[Label(_value(category), 1) for category in marks[argument]])


def _marks(labels: str) -> dict[str, dict[str, str]]:
    """Argument id -> category -> mark, marks "0" left out; fits in memory (the whole corpus has 9,324 arguments)."""
    marks: dict[str, dict[str, str]] = {}
    for url in urls(labels):
        require([url], [ID], quoted=False)
        categories = [name for name in columns(url, quoted=False) if name != ID]
        for category in categories:
            _check(category, url)
        names = [ID, *categories]
        readable = (row.fields for row in rows(url, names, quoted=False) if not row_error(row, names))
        for fields in readable:
            row_marks = {name: cell(fields, name) for name in categories}
            row_marks = {name: mark for name, mark in row_marks.items() if mark != "0"}
            before = marks.get(cell(fields, ID), row_marks)
            marks[cell(fields, ID)] = row_marks | {
                name: f"{before.get(name, '0')} and {row_marks.get(name, '0')}"  # refused where the argument is read
                for name in {*before, *row_marks}
                if before.get(name) != row_marks.get(name)
            }
    return marks


def _check(category: str, url: str) -> None:
    try:
        _value(category)
    except InputError as error:
        raise InputError(f"{url}, column {category!r}: {error}") from error


def _value(category: str) -> ValueId:
    return OBJECTIVITY.get(category) or items.value(category, "svt")
