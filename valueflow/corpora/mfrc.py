"""Moral Foundations Reddit Corpus: counts of annotators per foundation (TSV), or one row per annotator (the public CSV)."""

import html
from typing import Any

from valueflow.corpora.items import Adapter, Item, Label
from valueflow.errors import InputError, allowed
from valueflow.records import ValueId
from valueflow.tabular import cell

# The corpus splits fairness in two and calls sanctity purity.
FOUNDATIONS = {
    "Care": ValueId("mft:care-harm"),
    "Equality": ValueId("mft:equality"),
    "Proportionality": ValueId("mft:proportionality"),
    "Loyalty": ValueId("mft:loyalty-betrayal"),
    "Authority": ValueId("mft:authority-subversion"),
    "Purity": ValueId("mft:sanctity-degradation"),
}
UNLABELLED = ("Non-Moral", "Thin Morality")
ANNOTATION = "annotation"
MAX_DIGITS = 6  # of a number of annotators


def adapter(columns: list[str]) -> Adapter:
    """Return the adapter of a file with these columns: counts of annotators, or one row per annotator."""
    if ANNOTATION in columns:
        return Adapter(_annotation, ["text", ANNOTATION])
    return Adapter(_counts, ["text", *FOUNDATIONS], ("ID",), source_id="ID")


def _annotation(fields: dict[str, Any]) -> Item:
    names = [name.strip() for name in cell(fields, ANNOTATION).split(",") if name.strip()]
    for name in names:
        if name not in FOUNDATIONS and name not in UNLABELLED:
            raise InputError(f"unknown foundation {name!r}; {allowed(name, [*FOUNDATIONS, *UNLABELLED])}")
    return _item(fields, {name: 1 for name in names if name in FOUNDATIONS})


def _counts(fields: dict[str, Any]) -> Item:
    counts = {name: cell(fields, name) for name in FOUNDATIONS}
    for name, count in counts.items():
        if not count.isdecimal() or len(count) > MAX_DIGITS:
            raise InputError(f"{name!r} is {count!r}, not a number of annotators")
    return _item(fields, {name: int(count) for name, count in counts.items() if int(count)})


def _item(fields: dict[str, Any], counts: dict[str, int]) -> Item:
    labels = [Label(FOUNDATIONS[name], None, count) for name, count in counts.items()]
    return Item(html.unescape(html.unescape(cell(fields, "text"))), labels)
